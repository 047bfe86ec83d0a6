//===- LoadedModel.cpp - A compiled model in this process -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "LoadedModel.h"

#include "Compile.h"
#include "Session.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Support/MappedFile.h"
#include "nibble/Support/Random.h"

#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"

#include <dlfcn.h>
#include <set>

using namespace mlir;
using namespace nibble;
using llvm::Error;
using llvm::Expected;

static Error makeError(const Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

//===----------------------------------------------------------------------===//
// The library
//===----------------------------------------------------------------------===//

Expected<std::unique_ptr<LoadedModel>> LoadedModel::open(StringRef path) {
  std::unique_ptr<LoadedModel> loaded(new LoadedModel());
  loaded->library = ::dlopen(path.str().c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!loaded->library)
    return makeError(Twine("cannot load the compiled model: ") + ::dlerror());
  StringRef missing;
  auto find = [&](auto &function, StringRef suffix) {
    std::string name = (Twine(kPrefix) + "_" + suffix).str();
    void *address = ::dlsym(loaded->library, name.c_str());
    if (!address)
      missing = suffix;
    std::memcpy(static_cast<void *>(&function),
                static_cast<const void *>(&address), sizeof(address));
  };
  find(loaded->functions.create, "create");
  find(loaded->functions.destroy, "destroy");
  find(loaded->functions.lastError, "last_error");
  find(loaded->functions.target, "target");
  find(loaded->functions.inputs, "inputs");
  find(loaded->functions.outputs, "outputs");
  find(loaded->functions.run, "run");
  find(loaded->functions.release, "release");
  if (!missing.empty())
    return makeError("'" + path + "' has no function " + kPrefix + "_" +
                     missing);
  if (loaded->functions.create(nullptr, &loaded->model) != NIBBLE_OK)
    return makeError(loaded->functions.lastError());
  size_t count;
  const nibble_value *values = loaded->functions.inputs(&count);
  loaded->inputs = ArrayRef(values, count);
  values = loaded->functions.outputs(&count);
  loaded->outputs = ArrayRef(values, count);
  return loaded;
}

LoadedModel::~LoadedModel() {
  if (model)
    functions.destroy(model);
  if (library)
    ::dlclose(library);
}

std::string LoadedModel::getTarget() const { return functions.target(model); }

Error LoadedModel::call(ArrayRef<NpyArray> arrays,
                        std::vector<nibble_tensor> &results) const {
  std::vector<nibble_tensor> tensors;
  for (auto [value, array] : llvm::zip_equal(inputs, arrays)) {
    nibble_tensor tensor = {};
    tensor.data = const_cast<char *>(array.bytes.data());
    tensor.device.type = 1;
    tensor.ndim = array.shape.size();
    tensor.dtype = value.dtype;
    tensor.shape = const_cast<int64_t *>(array.shape.data());
    tensors.push_back(tensor);
  }
  results.assign(outputs.size(), nibble_tensor{});
  if (functions.run(model, tensors.data(), tensors.size(), results.data(),
                    results.size()) != NIBBLE_OK)
    return makeError(functions.lastError());
  return Error::success();
}

Expected<std::vector<NpyArray>>
LoadedModel::run(ArrayRef<NpyArray> arrays) const {
  std::vector<nibble_tensor> tensors;
  if (Error error = call(arrays, tensors))
    return error;
  std::vector<NpyArray> results;
  for (auto [value, tensor] : llvm::zip_equal(outputs, tensors)) {
    NpyArray array;
    array.name = value.name;
    array.kind = getNumpyKind(value.dtype.code, value.dtype.bits);
    array.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
    size_t size = (tensor.dtype.bits + 7) / 8;
    for (int64_t extent : array.shape)
      size *= extent;
    const char *data = static_cast<const char *>(tensor.data);
    array.bytes.assign(data, data + size);
    results.push_back(std::move(array));
  }
  functions.release(tensors.data(), tensors.size());
  return results;
}

Error LoadedModel::runOnly(ArrayRef<NpyArray> arrays) const {
  std::vector<nibble_tensor> tensors;
  if (Error error = call(arrays, tensors))
    return error;
  functions.release(tensors.data(), tensors.size());
  return Error::success();
}

//===----------------------------------------------------------------------===//
// The cache
//===----------------------------------------------------------------------===//

static Expected<std::string> getCacheFolder() {
  SmallString<128> folder;
  if (auto given = llvm::sys::Process::GetEnv("XDG_CACHE_HOME");
      given && !given->empty())
    folder = *given;
  else if (!llvm::sys::path::home_directory(folder))
    return makeError("there is no home directory for the cache of compiled "
                     "models; set XDG_CACHE_HOME or use --no-cache");
  else
    llvm::sys::path::append(folder, ".cache");
  llvm::sys::path::append(folder, "nibble");
  return folder.str().str();
}

/// Size and time of the running program: another one compiles otherwise.
static std::string getProgramStamp() {
  llvm::sys::fs::file_status status;
  if (llvm::sys::fs::status("/proc/self/exe", status))
    return "";
  return llvm::formatv("{0} {1}", status.getSize(),
                       status.getLastModificationTime().time_since_epoch())
      .str();
}

static Expected<uint64_t> hashFile(StringRef path) {
  auto file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  return hashBytes((*file)->getBytes(), /*mapped=*/true);
}

/// Of all that a compilation depends on.
static Expected<std::string> getKey(StringRef path, ModuleOp module,
                                    const CacheOptions &options) {
  std::set<std::string> files = {path.str()};
  module.walk([&](onnx::ConstantOp constant) {
    if (auto file = dyn_cast<onnx::FileElementsAttr>(constant.getValue()))
      files.insert(file.getPath().str());
  });
  const TargetRow *row = findTarget(options.target);
  std::string text = getProgramStamp() + "\n" +
                     (row ? row->name : StringRef(options.target)).str() +
                     "\n" + (options.reference ? "reference" : "cpu") + "\n" +
                     options.compute + "\n" +
                     (options.updateCaches ? "caches in place" : "") + "\n" +
                     options.variant + "\n";
  for (const std::string &file : files) {
    auto hash = hashFile(file);
    if (!hash)
      return hash.takeError();
    text += llvm::utohexstr(*hash) + "\n";
  }
  return llvm::utohexstr(hashBytes(ArrayRef(text.data(), text.size()),
                                   /*mapped=*/false),
                         /*LowerCase=*/true, /*Width=*/16);
}

static Expected<std::string> join(StringRef folder, StringRef name) {
  if (std::error_code error = llvm::sys::fs::create_directories(folder))
    return makeError("cannot make the folder '" + folder +
                     "': " + error.message());
  SmallString<128> path(folder);
  llvm::sys::path::append(path, name);
  return path.str().str();
}

/// Compiles into `folder` and loads from there. An error that has no message
/// has been printed.
static Expected<std::unique_ptr<LoadedModel>>
compileInto(StringRef folder, ModuleOp module, const CacheOptions &options) {
  auto target = parseTarget(options.target);
  if (!target)
    return target.takeError();
  auto library = join(folder, "model.so"),
       weights = join(folder, "model.weights");
  if (!library)
    return llvm::joinErrors(library.takeError(), weights.takeError());
  if (!weights)
    return weights.takeError();
  EmitOptions emit;
  emit.name = LoadedModel::kPrefix;
  emit.rows = target->rows;
  emit.device = target->device;
  emit.weightsFile = "model.weights";
  emit.compute = options.compute;
  emit.updateCaches = options.updateCaches;
  emit.reference = options.reference;
  auto model = EmittedModel::emit(module, emit);
  if (failed(model))
    return makeError("");
  if (Error error = writeLibrary(**model, *library, *weights))
    return error;
  return LoadedModel::open(*library);
}

static Expected<std::unique_ptr<LoadedModel>>
loadOrCompile(StringRef path, ModuleOp module, const CacheOptions &options) {
  if (options.disabled) {
    SmallString<128> folder;
    if (std::error_code error =
            llvm::sys::fs::createUniqueDirectory("nibble", folder))
      return makeError("cannot make a temporary folder: " + error.message());
    // What is loaded stays loaded.
    llvm::scope_exit cleanup(
        [&] { (void)llvm::sys::fs::remove_directories(folder); });
    return compileInto(folder, module, options);
  }
  auto cache = getCacheFolder();
  if (!cache)
    return cache.takeError();
  auto key = getKey(path, module, options);
  if (!key)
    return key.takeError();
  auto folder = join(*cache, *key);
  if (!folder)
    return folder.takeError();
  SmallString<128> library(*folder);
  llvm::sys::path::append(library, "model.so");
  if (llvm::sys::fs::exists(library)) {
    auto loaded = LoadedModel::open(library);
    if (loaded)
      return loaded;
    // Somebody changed the cache.
    llvm::consumeError(loaded.takeError());
    (void)llvm::sys::fs::remove_directories(*folder);
  }
  return compileInto(*folder, module, options);
}

std::unique_ptr<LoadedModel> nibble::loadCompiled(StringRef path,
                                                  ModuleOp module,
                                                  const CacheOptions &options) {
  auto loaded = loadOrCompile(path, module, options);
  if (loaded)
    return std::move(*loaded);
  std::string message = llvm::toString(loaded.takeError());
  if (!message.empty())
    fail(message);
  return nullptr;
}

//===----------------------------------------------------------------------===//
// Inputs
//===----------------------------------------------------------------------===//

static Expected<llvm::StringMap<int64_t>>
parseDimensions(ArrayRef<std::string> texts) {
  llvm::StringMap<int64_t> sizes;
  for (StringRef text : texts) {
    auto [name, number] = text.rsplit('=');
    int64_t size;
    if (name.empty() || number.getAsInteger(10, size) || size < 0)
      return makeError("--dim " + text + ": not NAME=SIZE");
    sizes[name] = size;
  }
  return sizes;
}

/// Floats in [-1, 1); integers 0 and 1, which are also indices and masks.
static void fillRandom(nibble_data_type type, Random &random,
                       std::vector<char> &bytes) {
  size_t size = type.bits / 8;
  for (size_t at = 0; at + size <= bytes.size(); at += size) {
    double number = random.draw();
    float single = static_cast<float>(2 * number - 1);
    double wide = single;
    uint32_t bits;
    std::memcpy(&bits, &single, sizeof(bits));
    if (type.code == 2 && size == 4) {
      std::memcpy(&bytes[at], &single, 4);
    } else if (type.code == 2 && size == 8) {
      std::memcpy(&bytes[at], &wide, 8);
    } else if (type.code == 4) {
      uint16_t half = bits >> 16;
      std::memcpy(&bytes[at], &half, 2);
    } else if (type.code == 2 && size == 2) {
      // ±2^-e with a mantissa: a normal number of that format.
      uint16_t half =
          static_cast<uint16_t>((bits >> 16 & 0x8000) |
                                (10 + (bits & 3)) << 10 | (bits >> 13 & 0x3ff));
      std::memcpy(&bytes[at], &half, 2);
    } else {
      bytes[at] = number < 0.5 ? 0 : 1;
    }
  }
}

static Expected<NpyArray> makeRandom(const nibble_value &value,
                                     const llvm::StringMap<int64_t> &sizes,
                                     Random &random) {
  NpyArray array;
  array.name = value.name;
  array.kind = getNumpyKind(value.dtype.code, value.dtype.bits);
  uint64_t bytes = value.dtype.bits / 8;
  for (int32_t axis = 0; axis < value.ndim; ++axis) {
    int64_t size = value.shape[axis];
    if (size < 0) {
      const char *name = value.dimensions[axis];
      auto it = name ? sizes.find(name) : sizes.end();
      size = it == sizes.end() ? 1 : it->second;
    }
    array.shape.push_back(size);
    if (__builtin_mul_overflow(bytes, uint64_t(size), &bytes) ||
        bytes > uint64_t(1) << 40)
      return makeError(Twine("input '") + value.name +
                       "' would be larger than 1 TiB; give smaller --dim");
  }
  array.bytes.resize(bytes);
  fillRandom(value.dtype, random, array.bytes);
  return array;
}

static std::string listNames(ArrayRef<nibble_value> values) {
  std::string names;
  for (const nibble_value &value : values)
    names += (names.empty() ? "'" : ", '") + std::string(value.name) + "'";
  return names;
}

/// Compares a given array with the input's type; the library does the rest.
static Error checkKind(const nibble_value &value, const NpyArray &array,
                       StringRef path) {
  std::string kind = getNumpyKind(value.dtype.code, value.dtype.bits);
  // Arrays of types that NumPy lacks come as raw bytes or as unsigned integers.
  bool same = array.kind == kind ||
              (kind.front() == 'V' && StringRef(array.kind).drop_front() ==
                                          StringRef(kind).drop_front());
  if (same)
    return Error::success();
  return makeError("'" + path + "': input '" + array.name + "' is " +
                   describeArray(array.kind, array.shape) +
                   ", and the model takes " + describeNumpyKind(kind) +
                   "; convert it before it is saved (astype)");
}

Expected<std::vector<NpyArray>>
nibble::makeInputs(ArrayRef<nibble_value> values, const InputOptions &options) {
  llvm::StringMap<NpyArray> given;
  if (!options.path.empty()) {
    auto arrays = readNpz(options.path);
    if (!arrays)
      return arrays.takeError();
    for (NpyArray &array : *arrays) {
      if (llvm::none_of(values, [&](const nibble_value &value) {
            return array.name == value.name;
          }))
        return makeError("'" + options.path + "' has an array '" + array.name +
                         "', and the model has no such input; its inputs are " +
                         listNames(values));
      std::string name = array.name;
      given[name] = std::move(array);
    }
  }
  auto sizes = parseDimensions(options.dimensions);
  if (!sizes)
    return sizes.takeError();
  for (auto &size : *sizes)
    if (llvm::none_of(values, [&](const nibble_value &value) {
          return llvm::any_of(llvm::seq(value.ndim), [&](int32_t axis) {
            return value.dimensions[axis] &&
                   size.getKey() == value.dimensions[axis];
          });
        }))
      return makeError("--dim " + size.getKey() +
                       ": no input has a dimension of this name");
  Random random(options.seed);
  std::vector<NpyArray> inputs;
  for (const nibble_value &value : values) {
    auto it = given.find(value.name);
    if (it != given.end()) {
      if (Error error = checkKind(value, it->second, options.path))
        return error;
      inputs.push_back(std::move(it->second));
      continue;
    }
    if (!options.random)
      return makeError(
          options.path.empty()
              ? "the model has inputs (" + listNames(values) +
                    "): give them by --inputs FILE.npz, or make them up by "
                    "--random"
              : "'" + options.path + "' has no array for the input '" +
                    value.name + "'; --random makes one up");
    auto array = makeRandom(value, *sizes, random);
    if (!array)
      return array.takeError();
    inputs.push_back(std::move(*array));
  }
  return inputs;
}
