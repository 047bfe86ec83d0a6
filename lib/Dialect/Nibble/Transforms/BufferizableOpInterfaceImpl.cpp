//===- BufferizableOpInterfaceImpl.cpp - Kernel ops on buffers ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/BufferizableOpInterfaceImpl.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Bufferization/IR/DstBufferizableOpInterfaceImpl.h"

using namespace mlir;
using namespace nibble;

namespace {
/// Of an op whose `init` is the last operand.
template <typename Op>
struct KernelBuffers
    : bufferization::DstBufferizableOpInterfaceExternalModel<KernelBuffers<Op>,
                                                             Op> {
  // All of the result is overwritten.
  bool bufferizesToMemoryRead(Operation *op, OpOperand &operand,
                              const bufferization::AnalysisState &) const {
    return !cast<DestinationStyleOpInterface>(op).isDpsInit(&operand);
  }

  LogicalResult bufferize(Operation *op, RewriterBase &rewriter,
                          const bufferization::BufferizationOptions &options,
                          bufferization::BufferizationState &state) const {
    SmallVector<Value> buffers;
    for (Value operand : op->getOperands()) {
      FailureOr<Value> buffer =
          bufferization::getBuffer(rewriter, operand, options, state);
      if (failed(buffer))
        return failure();
      buffers.push_back(*buffer);
    }
    OperationState buffered(op->getLoc(), op->getName(), buffers, TypeRange(),
                            op->getAttrs());
    rewriter.create(buffered);
    bufferization::replaceOpWithBufferizedValues(rewriter, op, buffers.back());
    return success();
  }
};
} // namespace

void nibble::registerBufferizableOpInterfaceExternalModels(
    DialectRegistry &registry) {
  registry.addExtension(+[](MLIRContext *context, NibbleDialect *) {
    PackedMatmulOp::attachInterface<KernelBuffers<PackedMatmulOp>>(*context);
    FragmentMatmulOp::attachInterface<KernelBuffers<FragmentMatmulOp>>(
        *context);
  });
}
