//===- ActivationRanges.cpp - What calibration saw of values --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/ActivationRanges.h"

#include "nibble/Support/OutputFile.h"

#include "llvm/Support/JSON.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cmath>
#include <map>

using namespace nibble;
using llvm::StringRef;

static std::vector<float> readNumbers(const llvm::json::Object &object,
                                      StringRef key) {
  std::vector<float> numbers;
  const llvm::json::Array *array = object.getArray(key);
  if (!array)
    return numbers;
  for (const llvm::json::Value &value : *array)
    numbers.push_back(static_cast<float>(value.getAsNumber().value_or(NAN)));
  return numbers;
}

/// Finite numbers >= 0, or none at all.
static bool isSoundOrEmpty(llvm::ArrayRef<float> numbers, size_t size) {
  return numbers.empty() ||
         (numbers.size() == size && llvm::all_of(numbers, [](float number) {
            return number >= 0 && std::isfinite(number);
          }));
}

static bool isSound(const ActivationRange &range) {
  size_t size = range.min.size();
  if (size == 0 || range.max.size() != size || range.mean.size() != size ||
      !isSoundOrEmpty(range.variance, size) ||
      !isSoundOrEmpty(range.magnitude, size))
    return false;
  for (size_t i = 0; i < size; ++i)
    if (!std::isfinite(range.min[i]) || !std::isfinite(range.max[i]) ||
        !std::isfinite(range.mean[i]) || range.min[i] > range.max[i])
      return false;
  return true;
}

llvm::Expected<ActivationRanges> nibble::readActivationRanges(StringRef path) {
  auto fail = [&](const llvm::Twine &reason) {
    return llvm::createStringError(llvm::inconvertibleErrorCode(),
                                   "'" + path + "': " + reason);
  };
  auto buffer = llvm::MemoryBuffer::getFile(path);
  if (!buffer)
    return fail(buffer.getError().message());
  auto parsed = llvm::json::parse((*buffer)->getBuffer());
  if (!parsed)
    return fail(llvm::toString(parsed.takeError()));
  const llvm::json::Object *root = parsed->getAsObject();
  const llvm::json::Object *values = root ? root->getObject("values") : nullptr;
  if (!values)
    return fail("has no object 'values'");
  ActivationRanges ranges;
  for (const auto &[name, value] : *values) {
    const llvm::json::Object *object = value.getAsObject();
    ActivationRange range;
    if (object)
      range = {readNumbers(*object, "min"), readNumbers(*object, "max"),
               readNumbers(*object, "mean"), readNumbers(*object, "variance"),
               readNumbers(*object, "magnitude")};
    if (!isSound(range))
      return fail("value '" + StringRef(name) +
                  "' needs lists min, max and mean of finite numbers, all of "
                  "one length, min <= max");
    ranges[StringRef(name)] = std::move(range);
  }
  return ranges;
}

llvm::Error nibble::writeActivationRanges(StringRef path,
                                          const ActivationRanges &ranges) {
  auto file = OutputFile::create(path);
  if (!file)
    return file.takeError();
  // Sorted, so that the same ranges make the same file.
  std::map<StringRef, const ActivationRange *> sorted;
  for (const auto &entry : ranges)
    sorted[entry.getKey()] = &entry.getValue();
  llvm::json::OStream json((*file)->getStream());
  auto write = [&](StringRef key, llvm::ArrayRef<float> numbers) {
    json.attributeArray(key, [&] {
      for (float number : numbers)
        json.value(number);
    });
  };
  json.object([&] {
    json.attributeObject("values", [&] {
      for (const auto &[name, range] : sorted)
        json.attributeObject(name, [&, range = range] {
          write("min", range->min);
          write("max", range->max);
          write("mean", range->mean);
          write("variance", range->variance);
          write("magnitude", range->magnitude);
        });
    });
  });
  return (*file)->commit();
}

mlir::FailureOr<ActivationRanges>
nibble::readActivationRanges(StringRef path, mlir::MLIRContext *context) {
  auto ranges = readActivationRanges(path);
  if (ranges)
    return std::move(*ranges);
  mlir::emitError(mlir::UnknownLoc::get(context))
      << llvm::toString(ranges.takeError());
  return mlir::failure();
}
