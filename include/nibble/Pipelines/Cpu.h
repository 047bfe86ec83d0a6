//===- Cpu.h - A model as fast code for a CPU, as a pipeline ----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_PIPELINES_CPU_H
#define NIBBLE_PIPELINES_CPU_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassOptions.h"

#include <string>

namespace nibble {

struct CpuOptions : mlir::PassPipelineOptions<CpuOptions> {
  Option<std::string> target{
      *this, "target",
      llvm::cl::desc("The instruction set to emit code for, by its name"),
      llvm::cl::init("native")};
  Option<std::string> compute{
      *this, "compute",
      llvm::cl::desc("How products with integer codes are computed: i8 "
                     "quantizes the activations too, f32 does not"),
      llvm::cl::init("i8")};
  Option<bool> threads{*this, "threads",
                       llvm::cl::desc("Run loops on several threads (OpenMP)"),
                       llvm::cl::init(true)};
  Option<bool> externalizeWeights{
      *this, "externalize-weights",
      llvm::cl::desc("Make large constants arguments of the main function"),
      llvm::cl::init(true)};
  Option<bool> observe{
      *this, "observe",
      llvm::cl::desc("Let calibration probes call the runtime"),
      llvm::cl::init(false)};
};

/// {func, onnx, nibble} ⇒ {func, linalg, math, scf, tensor, arith}. Arguments
/// of `main` that hold weights have the attribute `nibble.weight`.
void buildCpuTensorPipeline(mlir::OpPassManager &passes,
                            const CpuOptions &options);

/// What buildCpuTensorPipeline gives ⇒ {llvm}, with a C interface for `main`.
/// Buffers, errors and interrupts go through the runtime
/// (include/nibble/Runtime).
void buildCpuLoopPipeline(mlir::OpPassManager &passes,
                          const CpuOptions &options);

/// Runs one of them on `module`; with `reference` the part of the reference
/// pipeline (Reference.h) that goes as far.
mlir::LogicalResult lowerToTensors(mlir::ModuleOp module,
                                   const CpuOptions &options, bool reference);
mlir::LogicalResult lowerToLLVM(mlir::ModuleOp module,
                                const CpuOptions &options, bool reference);

/// Registers both, one after the other, as `nibble-cpu`.
void registerCpuPipeline();

} // namespace nibble

#endif // NIBBLE_PIPELINES_CPU_H
