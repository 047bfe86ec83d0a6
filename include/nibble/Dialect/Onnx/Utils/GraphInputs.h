//===- GraphInputs.h - What a graph lists as its inputs ---------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_UTILS_GRAPHINPUTS_H
#define NIBBLE_DIALECT_ONNX_UTILS_GRAPHINPUTS_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

namespace nibble::onnx {

/// Takes an initializer out of the inputs of its graph, where models before IR
/// version 4 list them all: one that is about to be stored in another form
/// cannot be given from outside.
void removeFromInputs(ConstantOp constant);

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_UTILS_GRAPHINPUTS_H
