//===- Gpu.h - A model as code for a GPU and its host, a pipeline -*- C++ -*-=//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_PIPELINES_GPU_H
#define NIBBLE_PIPELINES_GPU_H

#include "nibble/Conversion/DeviceProgram.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassOptions.h"

namespace nibble {

struct GpuOptions : mlir::PassPipelineOptions<GpuOptions> {
  Option<std::string> target{
      *this, "target", llvm::cl::desc("The GPU to emit code for, by its name"),
      llvm::cl::init("nvidia-sm80")};
  Option<std::string> host{
      *this, "host",
      llvm::cl::desc("The instruction set of the host's code, by its name"),
      llvm::cl::init("generic")};
  Option<bool> tensorCores{
      *this, "tensor-cores",
      llvm::cl::desc("Multiply by quantized weights on tensor cores, in f16"),
      llvm::cl::init(true)};
};

/// {func, onnx, nibble} ⇒ {func, linalg, math, scf, tensor, arith}. Arguments
/// of `main` that hold weights have the attribute `nibble.weight`.
void buildGpuTensorPipeline(mlir::OpPassManager &passes,
                            const GpuOptions &options);

/// What buildGpuTensorPipeline gives ⇒ {func, linalg, math, scf, memref, arith,
/// llvm} of the host, and in a module of its own the kernels
/// (DeviceProgram.h).
void buildGpuLaunchPipeline(mlir::OpPassManager &passes,
                            const GpuOptions &options);

/// Runs the first of them on `module`.
mlir::LogicalResult lowerToTensors(mlir::ModuleOp module,
                                   const GpuOptions &options);
/// Runs the second, takes the kernels out and lowers the host's part to {llvm},
/// as Cpu.h says. Arguments of `main` that hold weights have the attribute
/// `nibble.resident`.
mlir::FailureOr<DeviceProgram> lowerToLLVM(mlir::ModuleOp module,
                                           const GpuOptions &options);

/// Registers both, one after the other, as `nibble-gpu`.
void registerGpuPipeline();

} // namespace nibble

#endif // NIBBLE_PIPELINES_GPU_H
