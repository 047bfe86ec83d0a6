//===- UnitFiles.cpp - What units of work leave behind --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/UnitFiles.h"

#include "nibble/Support/OutputFile.h"

#include "mlir/Bytecode/BytecodeWriter.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/Parser/Parser.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/SourceMgr.h"

#include <cstring>

using namespace mlir;
using namespace nibble;
using llvm::Error;
using llvm::Expected;

static Error makeError(StringRef path, const Twine &what) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(),
                                 "'" + path + "' " + what);
}

//===----------------------------------------------------------------------===//
// Statistics
//===----------------------------------------------------------------------===//

/// The name of the array with the number of rows.
static std::string getRowsName(const std::string &probe) {
  return probe + ":rows";
}

Error nibble::writeStatistics(StringRef path,
                              const SegmentStatistics &statistics) {
  std::vector<NpyArray> arrays;
  for (const auto &[probe, moments] : statistics) {
    const std::vector<ExactSum> &sums = moments.sums();
    auto bytes = reinterpret_cast<const char *>(sums.data());
    arrays.push_back({probe,
                      "i8",
                      {static_cast<int64_t>(sums.size()), 2},
                      {bytes, bytes + sums.size() * sizeof(ExactSum)}});
    uint64_t rows = moments.rows();
    auto count = reinterpret_cast<const char *>(&rows);
    arrays.push_back(
        {getRowsName(probe), "u8", {}, {count, count + sizeof(rows)}});
  }
  return writeNpz(path, arrays);
}

Error nibble::readStatistics(StringRef path, SegmentStatistics &statistics) {
  auto arrays = readNpz(path);
  if (!arrays)
    return arrays.takeError();
  std::map<std::string, const NpyArray *> byName;
  for (const NpyArray &array : *arrays)
    byName[array.name] = &array;
  for (auto &[probe, moments] : statistics) {
    const NpyArray *sums = byName[probe], *rows = byName[getRowsName(probe)];
    uint64_t rowCount;
    if (!sums || !rows || rows->bytes.size() != sizeof(rowCount) ||
        sums->bytes.size() != moments.sums().size() * sizeof(ExactSum))
      return makeError(path,
                       "does not have what was measured for '" + probe + "'");
    std::memcpy(&rowCount, rows->bytes.data(), sizeof(rowCount));
    std::vector<ExactSum> read(moments.sums().size());
    std::memcpy(read.data(), sums->bytes.data(), sums->bytes.size());
    moments.restore(std::move(read), rowCount);
  }
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Factors
//===----------------------------------------------------------------------===//

Error nibble::writeFactors(StringRef path, const FactorRecord &factors) {
  auto file = OutputFile::create(path);
  if (!file)
    return file.takeError();
  std::map<StringRef, const FactorChoice *> sorted;
  for (const auto &entry : factors)
    sorted[entry.getKey()] = &entry.getValue();
  llvm::json::OStream json((*file)->getStream());
  json.object([&] {
    json.attributeObject("values", [&] {
      for (const auto &[name, choice] : sorted)
        json.attributeObject(name, [&, choice = choice] {
          json.attributeArray("factors", [&] {
            for (float factor : choice->factors)
              json.value(factor);
          });
          json.attribute("before", choice->noiseBefore);
          json.attribute("after", choice->noiseAfter);
          json.attribute("note", choice->note);
        });
    });
  });
  return (*file)->commit();
}

Expected<FactorRecord> nibble::readFactors(StringRef path) {
  auto buffer = llvm::MemoryBuffer::getFile(path);
  if (!buffer)
    return makeError(path, "cannot be read: " + buffer.getError().message());
  auto parsed = llvm::json::parse((*buffer)->getBuffer());
  if (!parsed)
    return makeError(path, llvm::toString(parsed.takeError()));
  const llvm::json::Object *root = parsed->getAsObject();
  const llvm::json::Object *values = root ? root->getObject("values") : nullptr;
  if (!values)
    return makeError(path, "has no object 'values'");
  FactorRecord record;
  for (const auto &[name, value] : *values) {
    const llvm::json::Object *object = value.getAsObject();
    const llvm::json::Array *factors =
        object ? object->getArray("factors") : nullptr;
    if (!factors)
      return makeError(path, "has no factors for '" + StringRef(name) + "'");
    FactorChoice &choice = record[StringRef(name)];
    for (const llvm::json::Value &factor : *factors)
      choice.factors.push_back(
          static_cast<float>(factor.getAsNumber().value_or(1)));
    choice.noiseBefore = object->getNumber("before").value_or(0);
    choice.noiseAfter = object->getNumber("after").value_or(0);
    choice.note = object->getString("note").value_or("").str();
  }
  return record;
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

/// Copies a weight and the constants that it is made of.
static AssembleOp copyWeight(AssembleOp weight, OpBuilder &builder) {
  IRMapping copies;
  for (Value part : weight->getOperands())
    builder.clone(*part.getDefiningOp(), copies);
  return cast<AssembleOp>(builder.clone(*weight, copies));
}

Error nibble::writeWeights(StringRef path, ArrayRef<AssembleOp> weights) {
  OpBuilder builder(AssembleOp(weights.front()).getContext());
  OwningOpRef<ModuleOp> module = ModuleOp::create(builder.getUnknownLoc());
  builder.setInsertionPointToStart(module->getBody());
  for (AssembleOp weight : weights)
    copyWeight(weight, builder);
  auto file = OutputFile::create(path);
  if (!file)
    return file.takeError();
  if (failed(writeBytecodeToFile(*module, (*file)->getStream())))
    return makeError(path, "cannot be written as bytecode");
  return (*file)->commit();
}

Error nibble::readWeights(StringRef path, ArrayRef<CalibratedWeight> weights) {
  auto buffer = llvm::MemoryBuffer::getFile(path, /*IsText=*/false);
  if (!buffer)
    return makeError(path, "cannot be read: " + buffer.getError().message());
  auto sources = std::make_shared<llvm::SourceMgr>();
  sources->AddNewSourceBuffer(std::move(*buffer), llvm::SMLoc());
  MLIRContext *context =
      onnx::ConstantOp(weights.front().constant).getContext();
  OwningOpRef<ModuleOp> module =
      parseSourceFile<ModuleOp>(sources, ParserConfig(context));
  if (!module)
    return makeError(path, "cannot be read");
  SmallVector<AssembleOp> found(module->getOps<AssembleOp>());
  if (found.size() != weights.size())
    return makeError(path, "has other weights");
  for (auto [weight, assemble] : llvm::zip(weights, found)) {
    onnx::ConstantOp constant = weight.constant;
    OpBuilder builder(constant);
    AssembleOp copy = copyWeight(assemble, builder);
    constant.getResult().replaceAllUsesWith(copy.getResult());
    constant.erase();
  }
  return Error::success();
}
