//===- PartRun.cpp - All samples through one part after another -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/PartRun.h"

#include "nibble/Numerics/Parallel.h"

#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace nibble;
using llvm::Error;
using llvm::Expected;

std::string nibble::getPartFile(size_t part, StringRef ending) {
  std::string number = std::to_string(part);
  return std::string(number.size() < 4 ? 4 - number.size() : 0, '0') + number +
         "." + ending.str();
}

std::string PartRun::getValuesFile(size_t part) {
  return getPartFile(part, "values");
}

PartRun::PartRun(std::vector<Segment> segments, const CalibrationData &data,
                 unsigned threads, Journal *journal)
    : segments(std::move(segments)), data(data), threads(threads),
      journal(journal) {
  lastReaders.reserve(this->segments.size());
  for (auto [part, segment] : llvm::enumerate(this->segments)) {
    lastReaders.push_back(part);
    for (Value input : segment.inputs)
      if (auto it = places.find(input); it != places.end())
        lastReaders[it->second.part] = part;
    for (auto [index, output] : llvm::enumerate(segment.outputs))
      places[output] = {part, index};
  }
}

/// Opens the files of earlier parts that this one reads.
Error PartRun::openInputs(size_t part) {
  for (Value input : segments[part].inputs) {
    auto it = places.find(input);
    if (it == places.end() || files.count(it->second.part))
      continue;
    size_t source = it->second.part;
    std::string name = getValuesFile(source);
    if (Error error = journal->check(name))
      return error;
    auto file = ActivationFile::open(
        journal->getPath(name), segments[source].outputs.size(), data.size());
    if (!file)
      return file.takeError();
    files[source] = std::move(*file);
  }
  return Error::success();
}

Expected<std::vector<HostTensor>> PartRun::readInputs(size_t part,
                                                      size_t sample) const {
  std::vector<HostTensor> given, inputs;
  for (Value input : segments[part].inputs) {
    if (auto argument = dyn_cast<BlockArgument>(input)) {
      if (given.empty()) {
        auto read = data.getSample(sample);
        if (!read)
          return read.takeError();
        given = std::move(*read);
      }
      inputs.push_back(given[argument.getArgNumber()]);
      continue;
    }
    Place place = places.lookup(input);
    auto tensor =
        files.at(place.part)
            ->read(place.index, sample, getElementTypeOrSelf(input.getType()));
    if (!tensor)
      return tensor.takeError();
    inputs.push_back(std::move(*tensor));
  }
  return inputs;
}

Error PartRun::runSample(size_t part, size_t sample, ActivationFile *outputs,
                         RunSample body) const {
  auto inputs = readInputs(part, sample);
  if (!inputs)
    return inputs.takeError();
  auto results = body(sample, *inputs);
  if (!results)
    return results.takeError();
  if (outputs)
    for (auto [index, result] : llvm::enumerate(*results))
      if (Error error = outputs->write(index, sample, result))
        return error;
  return Error::success();
}

Error PartRun::run(size_t part, bool keepOutputs, RunSample body) {
  if (Error error = openInputs(part))
    return error;
  std::unique_ptr<ActivationFile> outputs;
  if (keepOutputs) {
    auto file = ActivationFile::create(
        journal ? journal->getPath(getValuesFile(part)) : "",
        segments[part].outputs.size(), data.size());
    if (!file)
      return file.takeError();
    outputs = std::move(*file);
  }
  std::vector<std::string> failures(data.size());
  parallelFor(data.size(), 1, threads, [&](size_t begin, size_t end) {
    for (size_t sample = begin; sample < end; ++sample)
      if (Error error = runSample(part, sample, outputs.get(), body))
        failures[sample] = llvm::toString(std::move(error));
  });
  for (auto [sample, failure] : llvm::enumerate(failures))
    if (!failure.empty())
      return llvm::createStringError("calibration sample " + Twine(sample) +
                                     ": " + failure);
  if (!outputs)
    return Error::success();
  if (Error error = outputs->finish())
    return error;
  files[part] = std::move(outputs);
  return Error::success();
}

void PartRun::dropAfter(size_t part) {
  for (auto [source, last] : llvm::enumerate(lastReaders)) {
    if (last != part)
      continue;
    files.erase(source);
    if (journal)
      journal->drop(getValuesFile(source));
  }
}
