//===- NibbleOps.h - Quantized tensors and their parts ----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_IR_NIBBLEOPS_H
#define NIBBLE_DIALECT_NIBBLE_IR_NIBBLEOPS_H

#include "nibble/Dialect/Nibble/IR/NibbleAttributes.h"
#include "nibble/Dialect/Nibble/IR/NibbleDialect.h"
#include "nibble/Numerics/FragmentPacking.h"
#include "nibble/Numerics/PanelPacking.h"

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include <optional>

namespace nibble {

/// How the packed bytes of a weight [K, N] with the layout `panel` are laid
/// out; std::nullopt where the type is none (Spec C28).
std::optional<PanelFormat> getPanelFormat(mlir::RankedTensorType weightType);

/// Bits that a code takes in a panel: integers of up to 8 bits, and code books
/// of 2 to 4 with a finite entry for each code; 0 for another storage.
unsigned getPanelBits(StorageAttr storage);

/// How a weight with the layout `fragment` is packed (Spec C32), but for the
/// values of its codes; none for another type.
std::optional<FragmentFormat>
getFragmentFormat(mlir::RankedTensorType weightType);

} // namespace nibble

#define GET_OP_CLASSES
#include "nibble/Dialect/Nibble/IR/NibbleOps.h.inc"

#endif // NIBBLE_DIALECT_NIBBLE_IR_NIBBLEOPS_H
