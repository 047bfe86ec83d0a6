//===- DeviceProgram.cpp - The GPU's part of a model ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/DeviceProgram.h"

using namespace mlir;
using namespace nibble;

static int32_t getNumber(DictionaryAttr record, StringRef key) {
  return static_cast<int32_t>(record.getAs<IntegerAttr>(key).getInt());
}

static ProductKernel readKernel(DictionaryAttr record) {
  return {record.getAs<StringAttr>("name").str(), getNumber(record, "max_rows"),
          getNumber(record, "outputs"),           getNumber(record, "rows"),
          getNumber(record, "warps_along_k"),     getNumber(record, "threads"),
          getNumber(record, "shared_bytes")};
}

static ProductFormat readFormat(DictionaryAttr record) {
  ProductFormat format{getNumber(record, "bits"),
                       getNumber(record, "group"),
                       getNumber(record, "has_zeros") != 0,
                       getNumber(record, "overlaps") != 0,
                       {}};
  for (auto kernel :
       record.getAs<ArrayAttr>("kernels").getAsRange<DictionaryAttr>())
    format.kernels.push_back(readKernel(kernel));
  return format;
}

DeviceProgram nibble::takeDeviceProgram(ModuleOp module) {
  DeviceProgram program;
  auto device = module.lookupSymbol<ModuleOp>(kDeviceName);
  for (auto name : device->getAttrOfType<ArrayAttr>(kKernelsAttrName)
                       .getAsRange<StringAttr>())
    program.kernels.push_back(name.str());
  for (auto format : device->getAttrOfType<ArrayAttr>(kProductsAttrName)
                         .getAsRange<DictionaryAttr>())
    program.products.push_back(readFormat(format));
  if (auto bytes = device->getAttrOfType<IntegerAttr>(kBufferBytesAttrName))
    program.bufferBytes = bytes.getInt();
  device->remove();
  program.module = device;
  return program;
}
