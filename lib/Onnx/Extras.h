//===- Extras.h - What a message says besides its model ---------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_ONNX_EXTRAS_H
#define NIBBLE_LIB_ONNX_EXTRAS_H

#include "nibble/Onnx/Wire.h"

#include "mlir/IR/BuiltinAttributes.h"

namespace nibble {

/// Where a kind of message keeps what most of them have; 0 where it does not.
struct ExtraFields {
  uint32_t docString = 0;
  uint32_t metadata = 0;
  uint32_t name = 0;
};

inline constexpr ExtraFields kModelExtras{6, 14, 0};
inline constexpr ExtraFields kGraphExtras{10, 16, 0};
inline constexpr ExtraFields kNodeExtras{6, 9, 0};
inline constexpr ExtraFields kFunctionExtras{8, 14, 0};
inline constexpr ExtraFields kTensorExtras{12, 16, 8};

/// Collects the fields of one message that have no place of their own: doc
/// string and metadata by name, all others verbatim.
class ExtrasBuilder {
public:
  ExtrasBuilder(mlir::MLIRContext *context, ExtraFields fields)
      : context(context), fields(fields) {}

  void add(const wire::Field &field);
  /// The collected fields, or null if there were none.
  mlir::DictionaryAttr get() const;

private:
  mlir::MLIRContext *context;
  ExtraFields fields;
  mlir::StringAttr docString, name;
  llvm::SmallVector<mlir::Attribute> metadata;
  std::string rest;
};

/// Writes what ExtrasBuilder collected.
void writeExtras(wire::Writer &writer, mlir::DictionaryAttr extras,
                 ExtraFields fields);

} // namespace nibble

#endif // NIBBLE_LIB_ONNX_EXTRAS_H
