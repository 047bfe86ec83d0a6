//===- DeviceBuilder.h - The words of GPU kernels ---------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Kernels compute addresses in 32 bits, in elements of what a pointer points
// to, and work on the registers of the tensor cores: values of i32 that hold
// two numbers of f16, and f32 accumulators.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETONVVM_DEVICEBUILDER_H
#define NIBBLE_LIB_CONVERSION_NIBBLETONVVM_DEVICEBUILDER_H

#include "nibble/Conversion/CodeBuilder.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"

namespace nibble {

class DeviceBuilder : public CodeBuilder {
public:
  using CodeBuilder::CodeBuilder;

  static constexpr unsigned kGlobal = 1, kShared = 3;

  //===--- Types --------------------------------------------------------------

  mlir::Type f16() { return builder.getF16Type(); }
  mlir::Type pointer(unsigned space) {
    return mlir::LLVM::LLVMPointerType::get(builder.getContext(), space);
  }

  //===--- Integers -----------------------------------------------------------

  mlir::Value integer(int64_t value);
  mlir::Value remainder(mlir::Value a, int64_t b);
  mlir::Value bitAnd(mlir::Value a, int64_t mask);
  mlir::Value bitOr(mlir::Value a, mlir::Value b);
  mlir::Value bitOr(mlir::Value a, int64_t bits);
  mlir::Value bitXor(mlir::Value a, mlir::Value b);
  mlir::Value shiftRight(mlir::Value a, int64_t bits);
  mlir::Value shiftLeft(mlir::Value a, int64_t bits);
  /// Four of the bytes 0 … 3 of `a` and 4 … 7 of `b`, by the nibbles of
  /// `selector` from the low one up, which are below 8.
  mlir::Value permuteBytes(mlir::Value a, mlir::Value b, mlir::Value selector);
  mlir::Value both(mlir::Value a, mlir::Value b);
  mlir::Value select(mlir::Value condition, mlir::Value a, mlir::Value b);

  //===--- Numbers ------------------------------------------------------------

  mlir::Value number(mlir::Type type, double value);
  mlir::Value fadd(mlir::Value a, mlir::Value b);
  mlir::Value fmul(mlir::Value a, mlir::Value b);
  mlir::Value fma(mlir::Value a, mlir::Value b, mlir::Value c);
  mlir::Value extend(mlir::Value value, mlir::Type type);
  mlir::Value truncate(mlir::Value value, mlir::Type type);
  mlir::Value bitcast(mlir::Value value, mlir::Type type);
  mlir::Value lane(mlir::Value vector, int64_t position);
  mlir::Value fromLanes(mlir::ValueRange lanes);
  /// All lanes are `value`.
  mlir::Value splat(mlir::Value value, int64_t lanes);

  //===--- Memory -------------------------------------------------------------

  /// `base` moved by `elements` of `type`.
  mlir::Value at(mlir::Value base, mlir::Type type, mlir::Value elements);
  /// The same for offsets that may pass 2³¹ bytes: row · stride + column.
  mlir::Value atRow(mlir::Value base, mlir::Type type, mlir::Value row,
                    mlir::Value stride, mlir::Value column);
  mlir::Value load(mlir::Type type, mlir::Value address, unsigned alignment);
  /// From memory that no one writes while the kernel runs.
  mlir::Value loadConstant(mlir::Type type, mlir::Value address,
                           unsigned alignment);
  /// The same where `condition` holds, else 0 without a look at the memory.
  mlir::Value loadConstantIf(mlir::Value condition, mlir::Type type,
                             mlir::Value address, unsigned alignment);
  /// What other blocks wrote: not from the caches of this multiprocessor.
  mlir::Value loadUncached(mlir::Type type, mlir::Value address,
                           unsigned alignment);
  void store(mlir::Value value, mlir::Value address, unsigned alignment);
  /// Starts a copy of 16 bytes, of which `bytes` are read and the others 0.
  void copyAsync(mlir::Value shared, mlir::Value global, mlir::Value bytes);
  void commitCopies();
  /// Waits until at most `pending` groups of copies are under way.
  void waitForCopies(unsigned pending);

  //===--- Threads ------------------------------------------------------------

  mlir::Value threadIndex();
  mlir::Value blockIndex(unsigned dimension);
  mlir::Value gridSize(unsigned dimension);
  /// All threads of the block.
  void barrier();
  /// `threads` threads, a multiple of 32, that name the same barrier.
  void barrier(mlir::Value identifier, int64_t threads);
  void syncWarp();
  /// The value, of 32 bits, of the lane whose number differs in the bits of
  /// `mask`. All lanes of the warp take part.
  mlir::Value shuffle(mlir::Value value, int64_t mask);
  /// Lets the next kernel of the stream start, and waits until the one before
  /// has ended and its results can be read (sm_90; PTX ISA, griddepcontrol).
  void letNextKernelStart();
  void waitForKernelBefore();
  /// Orders what this thread wrote before what it writes next, for all blocks.
  void fence();
  /// Returns what was there before.
  mlir::Value atomicAdd(mlir::Value address, mlir::Value value);

  //===--- Tensor cores -------------------------------------------------------

  /// Four 8×8 matrices of f16; each lane gives the address of a row.
  Values loadMatrices(mlir::Value address);
  /// D = A·B + C of 16×16 by 16×8; `a` has 4 registers, `b` 2, `c` 4.
  Values multiply(mlir::ValueRange a, mlir::ValueRange b, mlir::ValueRange c);

  /// Of a warpgroup, on sm_90a: D = A·B + C of 64×16 by 16×N. `a` has 4
  /// registers, `c` N / 2. `descriptor` says where B lies, N rows of 64 inputs
  /// swizzled in 128 bytes (PTX ISA, "Matrix descriptor format").
  Values multiplyAsync(mlir::ValueRange a, mlir::Value descriptor,
                       mlir::ValueRange c);
  /// The descriptor of rows at `shared`, and of those `bytes` behind.
  mlir::Value describeRows(mlir::Value shared);
  mlir::Value moveDescriptor(mlir::Value descriptor, int64_t bytes);
  /// Registers that were written before may be read by multiplyAsync.
  void fenceRegisters();
  /// Shared memory that was written before may be read by multiplyAsync.
  void fenceSharedForAsync();
  void commitProducts();
  /// Waits until at most `pending` groups of products are under way.
  void waitForProducts(unsigned pending);
};

/// A kernel of `threads` threads a block at the end of `module`. Its body gets
/// the arguments and the block's dynamic shared memory, 1024-byte aligned.
mlir::LLVM::LLVMFuncOp createKernel(
    mlir::ModuleOp module, llvm::StringRef name,
    llvm::ArrayRef<mlir::Type> arguments, int64_t threads,
    llvm::function_ref<void(DeviceBuilder &, mlir::ValueRange arguments,
                            mlir::Value shared)>
        body);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETONVVM_DEVICEBUILDER_H
