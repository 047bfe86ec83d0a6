//===- BufferizableOpInterfaceImpl.h - Kernel ops on buffers ----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_BUFFERIZABLEOPINTERFACEIMPL_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_BUFFERIZABLEOPINTERFACEIMPL_H

#include "mlir/IR/DialectRegistry.h"

namespace nibble {

/// Lets one-shot bufferization give `nibble.packed_matmul` buffers.
void registerBufferizableOpInterfaceExternalModels(
    mlir::DialectRegistry &registry);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_BUFFERIZABLEOPINTERFACEIMPL_H
