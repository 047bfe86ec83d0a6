//===- Opset.cpp - What a model imports -----------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/Utils/Opset.h"

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Imports
//===----------------------------------------------------------------------===//

static bool isDomain(OpsetAttr opset, StringRef domain) {
  StringRef stated = opset.getDomain() ? opset.getDomain().getValue() : "";
  return stated == domain || (domain.empty() && stated == "ai.onnx");
}

static void importDomain(ModuleOp module, StringRef domain, int64_t version) {
  MLIRContext *context = module.getContext();
  SmallVector<Attribute> opsets;
  bool found = false;
  if (auto old = module->getAttrOfType<ArrayAttr>(kOpsetsAttrName))
    for (auto opset : old.getAsRange<OpsetAttr>()) {
      if (isDomain(opset, domain)) {
        found = true;
        opset = OpsetAttr::get(context, opset.getDomain(), version);
      }
      opsets.push_back(opset);
    }
  if (!found)
    opsets.push_back(
        OpsetAttr::get(context, StringAttr::get(context, domain), version));
  module->setAttr(kOpsetsAttrName, ArrayAttr::get(context, opsets));
}

void onnx::requireDomain(ModuleOp module, StringRef domain, int64_t version) {
  if (getOpsetVersion(module, domain) == 0)
    importDomain(module, domain, version);
}

static void requireIRVersion(ModuleOp module, int64_t version) {
  auto old = module->getAttrOfType<IntegerAttr>(kIRVersionAttrName);
  if (!old || old.getInt() < version)
    module->setAttr(kIRVersionAttrName,
                    Builder(module.getContext()).getI64IntegerAttr(version));
}

void onnx::requireFreeInitializers(ModuleOp module) {
  requireIRVersion(module, 4);
}

/// The IR version that an opset of ONNX came with (onnx/docs/Versioning.md).
static int64_t getIRVersion(int64_t opset) {
  struct Row {
    int64_t opset, irVersion;
  };
  constexpr Row rows[] = {{25, 13}, {24, 12}, {23, 11}, {21, 10}, {19, 9},
                          {15, 8},  {12, 7},  {11, 6},  {10, 5},  {9, 4}};
  for (const Row &row : rows)
    if (opset >= row.opset)
      return row.irVersion;
  return 3;
}

void onnx::setOpset(ModuleOp module, int64_t version) {
  importDomain(module, "", version);
  requireIRVersion(module, getIRVersion(version));
}
