//===- Assign.cpp - From a graph to a plan --------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Pipelines/Pipelines.h"

#include "nibble/Dialect/Nibble/Transforms/Passes.h"

using namespace nibble;

void nibble::buildAssignPipeline(mlir::OpPassManager &passes,
                                 const AssignOptions &options) {
  NibbleAssignSchemesOptions assign;
  assign.scheme = options.scheme;
  assign.rules.assign(options.rules.begin(), options.rules.end());
  passes.addPass(createNibbleAssignSchemes(assign));
}
