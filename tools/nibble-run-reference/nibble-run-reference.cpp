//===- nibble-run-reference.cpp - Run a model by the reference lowering ---===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A tool for the tests: what it computes is slow and right. It understands the
// layout of ONNX's backend tests, a folder with model.onnx and the folders
// test_data_set_0, … with input_0.pb, ….
//
//===----------------------------------------------------------------------===//

#include "nibble/Tools/ModelFile.h"
#include "nibble/Tools/Registration.h"
#include "nibble/Tools/RunModel.h"

#include "mlir/IR/MLIRContext.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/Path.h"

using namespace nibble;
namespace cl = llvm::cl;

static cl::OptionCategory category("nibble-run-reference options");
static cl::list<std::string>
    models(cl::Positional, cl::OneOrMore, cl::cat(category),
           cl::desc("<model, or folder with model.onnx or model.mlir>..."));
static cl::opt<std::string>
    inputs("inputs", cl::value_desc("folder"), cl::cat(category),
           cl::desc("Folder with input_0.pb, input_1.pb, ... (TensorProto)"));
static cl::opt<bool>
    native("native", cl::cat(category),
           cl::desc("Run the fast code instead of the reference"));
static cl::opt<std::string> target("target", cl::init("native"),
                                   cl::cat(category),
                                   cl::desc("Target row of the fast code"));
static cl::opt<std::string>
    compute("compute", cl::init("i8"), cl::cat(category),
            cl::desc("Compute type of products with integer codes"));
static cl::opt<std::string>
    outputs("outputs", cl::value_desc("folder"), cl::cat(category),
            cl::desc("Folder for output_0.pb, output_1.pb, ..."));

static mlir::LogicalResult report(llvm::StringRef path, llvm::Error error) {
  if (!error)
    return mlir::success();
  llvm::errs() << path << ": error: " << llvm::toString(std::move(error))
               << "\n";
  return mlir::failure();
}

static std::string join(llvm::StringRef folder, const llvm::Twine &name) {
  llvm::SmallString<128> path(folder);
  llvm::sys::path::append(path, name);
  return path.str().str();
}

/// Compiles the model at `path` and runs it on each pair of folders.
static mlir::LogicalResult
runOn(llvm::StringRef path,
      llvm::ArrayRef<std::pair<std::string, std::string>> folders,
      const mlir::DialectRegistry &registry) {
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  printDiagnostics(context);
  auto module = loadModel(path, &context);
  if (!module)
    return mlir::failure();
  CompileOptions options;
  options.reference = !native;
  options.target = target;
  options.compute = compute;
  auto model = CompiledModel::compile(*module, options);
  if (failed(model))
    return mlir::failure();
  for (const auto &[from, to] : folders)
    if (failed(report(path, runModel(**model, from, to, &context))))
      return mlir::failure();
  return mlir::success();
}

/// Runs a backend test's folder; results go to <data set>/actual.
static mlir::LogicalResult runFolder(llvm::StringRef folder,
                                     const mlir::DialectRegistry &registry) {
  std::string model = join(folder, "model.onnx");
  if (!llvm::sys::fs::exists(model))
    model = join(folder, "model.mlir");
  std::vector<std::pair<std::string, std::string>> folders;
  for (unsigned i = 0;; ++i) {
    std::string set = join(folder, "test_data_set_" + llvm::Twine(i));
    if (!llvm::sys::fs::is_directory(set))
      break;
    folders.push_back({set, join(set, "actual")});
  }
  return runOn(model, folders, registry);
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(
      argc, argv,
      "Runs models by the reference lowering\n\n"
      "  nibble-run-reference m.onnx --inputs in --outputs out\n"
      "  nibble-run-reference test_relu test_matmul_2d    # "
      "ONNX's backend tests; results go to test_data_set_*/actual\n");
  mlir::DialectRegistry registry;
  registerNibbleDialects(registry);
  registerReferenceDialects(registry);
  bool failed = false;
  for (const std::string &path : models) {
    if (llvm::sys::fs::is_directory(path)) {
      failed |= mlir::failed(runFolder(path, registry));
      continue;
    }
    if (inputs.empty() || outputs.empty()) {
      llvm::errs() << path << ": error: a model needs --inputs and --outputs\n";
      return 2;
    }
    failed |= mlir::failed(runOn(path, {{inputs, outputs}}, registry));
  }
  return failed;
}
