//===- LoopKernel.h - Elementwise ops and reductions for GPUs ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A linalg op becomes a kernel with a thread for each element of its result,
// which runs the op's reductions one after the other:
//
//   thread i:  position = i in the parallel loops, the last one innermost
//              result   = output[position]
//              for all reductions: result = body(inputs, result)
//              output[position] = result
//
// Where a reduction runs along rows of all its inputs, the lanes of a warp
// share it: lane j takes every 32nd part from j on, and what they have is
// joined in a fixed order.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETONVVM_LOOPKERNEL_H
#define NIBBLE_LIB_CONVERSION_NIBBLETONVVM_LOOPKERNEL_H

#include "nibble/Conversion/CodeBuilder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

namespace nibble {

/// Threads of a block.
constexpr int64_t kLoopThreads = 256;

/// True where a kernel can do what `op` on buffers does: its body only computes
/// and reads, by functions that GPUs have without a library, and each thread
/// writes elements of its own.
bool canBeKernel(mlir::linalg::LinalgOp op);

/// Threads for each element of the result of `op`: 1, or those of a warp.
int64_t getThreadsPerElement(mlir::linalg::GenericOp op);

/// The address of the first element of a buffer, as i64.
mlir::Value buildAddress(mlir::OpBuilder &builder, mlir::Location loc,
                         mlir::Value buffer);

/// What a kernel takes for values of the host: of a buffer its first element
/// (as i64), dynamic sizes and dynamic strides; of a number itself, of an index
/// an i64.
Values buildKernelArguments(mlir::OpBuilder &builder, mlir::Location loc,
                            mlir::ValueRange values);

/// Adds to `module` the kernel `name` that does what `op` does, whose operands
/// and captures are `values` or constants.
void buildLoopKernel(mlir::ModuleOp module, llvm::StringRef name,
                     mlir::linalg::GenericOp op, mlir::ValueRange values);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETONVVM_LOOPKERNEL_H
