//===- Pipelines.h - The phases of a compilation ----------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_PIPELINES_PIPELINES_H
#define NIBBLE_PIPELINES_PIPELINES_H

#include "mlir/Pass/PassManager.h"

#include <string>
#include <vector>

namespace nibble {

struct AssignOptions {
  std::string scheme = "w4g128";
  std::vector<std::string> rules;
};

/// Makes the graph ready for activations in 8 bits.
///   before: {func, onnx}   after: {func, onnx}, of known types, nothing beside
///   a convolution that its filter can hold
void buildFoldPipeline(mlir::OpPassManager &passes);

/// Makes the graph ready and decides how each weight is stored.
///   before: {func, onnx}   after: {func, onnx}, constants with nibble.encoding
void buildAssignPipeline(mlir::OpPassManager &passes,
                         const AssignOptions &options);

/// Brings quantized ops into the form of the nibble dialect.
///   before: {func, onnx}   after: {func, onnx, nibble}
void buildRaisePipeline(mlir::OpPassManager &passes);

} // namespace nibble

#endif // NIBBLE_PIPELINES_PIPELINES_H
