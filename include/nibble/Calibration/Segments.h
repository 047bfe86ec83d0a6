//===- Segments.h - A graph in parts that run one by one --------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CALIBRATION_SEGMENTS_H
#define NIBBLE_CALIBRATION_SEGMENTS_H

#include "nibble/Target/JIT.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

#include <vector>

namespace nibble {

/// Consecutive nodes of a graph. Constants, and what is computed from constants
/// only, belong to no segment: each takes along what it reads.
struct Segment {
  std::vector<mlir::Operation *> nodes;
  /// What it reads of earlier segments and of the model's inputs, and what it
  /// computes for later ones.
  std::vector<mlir::Value> inputs, outputs;
  /// Whether a weight in it will be quantized (nibble.encoding).
  bool hasWeights = false;
};

/// Splits the body of `main` where little has to be kept: between two groups of
/// weights that read different inputs, at the place that the fewest numbers
/// cross, if that is at most 1.25 times the fewest anywhere. In a transformer
/// these are the residual connections. What comes after the last weight is in
/// no segment.
std::vector<Segment> planSegments(mlir::func::FuncOp main);

/// The same for a whole run of the model: what comes after the last weight is a
/// segment too, and what the model returns is among the outputs. Where no
/// weight will be quantized, the constant matrices that MatMul and Gemm read
/// take their place.
std::vector<Segment> planWholeRun(mlir::func::FuncOp main);

/// A model whose `main` is the segment: its inputs to its outputs. The nodes
/// are copied, with their weights as they are now.
mlir::OwningOpRef<mlir::ModuleOp> buildSegment(mlir::ModuleOp module,
                                               const Segment &segment);

/// Code for a model that buildSegment made, in f32, whose probes report what
/// they see. Equal parts share `code`.
mlir::FailureOr<std::unique_ptr<CompiledModel>>
compileSegment(mlir::ModuleOp model, CodeCache &code);

/// Code for a segment of `module`, whose weights need not stay in memory then;
/// `observe`: with probes before the nodes that get quantized
/// (--nibble-insert-observers).
mlir::FailureOr<std::unique_ptr<CompiledModel>>
compileSegment(mlir::ModuleOp module, const Segment &segment, bool observe,
               CodeCache &code);

/// The weights of a segment have been packed: the pages of the model's file
/// need not stay in memory.
void dropWeightPages(const Segment &segment);

} // namespace nibble

#endif // NIBBLE_CALIBRATION_SEGMENTS_H
