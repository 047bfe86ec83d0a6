//===- OnnxDialect.cpp - The onnx dialect ---------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/Bytecode/BytecodeImplementation.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

#include "nibble/Dialect/Onnx/IR/OnnxDialect.cpp.inc"
#include "nibble/Dialect/Onnx/IR/OnnxEnums.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "nibble/Dialect/Onnx/IR/OnnxTypes.cpp.inc"

namespace {
/// Writes an `#onnx.file` without its hash, which would read the weights.
struct OnnxBytecodeInterface : BytecodeDialectInterface {
  OnnxBytecodeInterface(Dialect *dialect) : BytecodeDialectInterface(dialect) {}

  LogicalResult writeAttribute(Attribute attr,
                               DialectBytecodeWriter &writer) const override {
    auto file = dyn_cast<FileElementsAttr>(attr);
    if (!file)
      return failure();
    writer.writeType(file.getType());
    writer.writeAttribute(file.getPath());
    writer.writeVarInt(file.getOffset());
    writer.writeVarInt(file.getLength());
    writer.writeVarInt(file.getVarint());
    return success();
  }

  Attribute readAttribute(DialectBytecodeReader &reader) const override {
    Type type;
    StringAttr path;
    uint64_t offset, length, varint;
    if (failed(reader.readType(type)) || failed(reader.readAttribute(path)) ||
        failed(reader.readVarInt(offset)) ||
        failed(reader.readVarInt(length)) || failed(reader.readVarInt(varint)))
      return {};
    auto shaped = dyn_cast<ShapedType>(type);
    if (!shaped) {
      reader.emitError("an onnx.file needs a tensor type");
      return {};
    }
    auto emitError = [&] { return reader.emitError(); };
    return FileElementsAttr::getChecked(emitError, getContext(), shaped, path,
                                        offset, length, varint != 0);
  }
};
} // namespace

void OnnxDialect::initialize() {
  registerAttributes();
  addTypes<
#define GET_TYPEDEF_LIST
#include "nibble/Dialect/Onnx/IR/OnnxTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "nibble/Dialect/Onnx/IR/OnnxOps.cpp.inc"
      >();
  addInterfaces<OnnxBytecodeInterface>();
}

//===----------------------------------------------------------------------===//
// Shapes
//===----------------------------------------------------------------------===//

SmallVector<Dimension> onnx::getDimensions(RankedTensorType type) {
  SmallVector<Dimension> dimensions;
  auto dims = dyn_cast_if_present<DimsAttr>(type.getEncoding());
  size_t dynamic = 0;
  for (int64_t size : type.getShape()) {
    Dimension dimension{size, {}};
    if (ShapedType::isDynamic(size) && dims)
      dimension.symbol = dims.getSymbols()[dynamic++];
    dimensions.push_back(dimension);
  }
  return dimensions;
}

RankedTensorType onnx::getTensorType(ArrayRef<Dimension> dimensions,
                                     Type elementType) {
  SmallVector<int64_t> shape;
  SmallVector<StringAttr> symbols;
  for (const Dimension &dimension : dimensions) {
    shape.push_back(dimension.size);
    if (!dimension.isStatic())
      symbols.push_back(dimension.symbol);
  }
  Attribute encoding;
  if (llvm::any_of(symbols, [](StringAttr symbol) { return !!symbol; }))
    encoding = DimsAttr::get(elementType.getContext(), symbols);
  return RankedTensorType::get(shape, elementType, encoding);
}

//===----------------------------------------------------------------------===//
// Models
//===----------------------------------------------------------------------===//

int64_t onnx::getOpsetVersion(Operation *op, StringRef domain) {
  // A node from a local function may have a version of its own.
  ArrayAttr opsets;
  if (isa<NodeOp>(op))
    opsets = op->getAttrOfType<ArrayAttr>(kOpsetsAttrName);
  if (auto func = op->getParentOfType<func::FuncOp>(); !opsets && func)
    if (auto function = func->getAttrOfType<FunctionAttr>(kFunctionAttrName))
      opsets = function.getOpsets();
  if (!opsets) {
    auto module = dyn_cast<ModuleOp>(op);
    if (!module)
      module = op->getParentOfType<ModuleOp>();
    if (module)
      opsets = module->getAttrOfType<ArrayAttr>(kOpsetsAttrName);
  }
  if (!opsets)
    return 0;
  for (auto opset : opsets.getAsRange<OpsetAttr>())
    if ((opset.getDomain() ? opset.getDomain().getValue() : "") == domain)
      return opset.getVersion();
  return 0;
}

Attribute onnx::getConstantValue(Value value) {
  if (!value)
    return {};
  Attribute constant;
  if (auto op = value.getDefiningOp<ConstantOp>())
    constant = op.getValue();
  else if (auto node = value.getDefiningOp<NodeOp>();
           node && node.isOnnx("Constant"))
    if (auto tensor =
            dyn_cast_if_present<TensorAttr>(node.getAttributeValue("value")))
      constant = tensor.getValue();
  if (isa_and_present<DenseElementsAttr, DenseResourceElementsAttr,
                      FileElementsAttr, StringsAttr>(constant))
    return constant;
  return {};
}

unsigned onnx::getBitWidth(Type type) {
  if (auto complex = dyn_cast<ComplexType>(type))
    return 2 * getBitWidth(complex.getElementType());
  if (type.isInteger(1))
    return 8; // ONNX keeps a bool in a byte.
  return type.isIntOrFloat() ? type.getIntOrFloatBitWidth() : 0;
}

std::optional<uint64_t> onnx::getPackedSize(ShapedType type) {
  uint64_t bits = getBitWidth(type.getElementType());
  for (int64_t size : type.getShape()) {
    if (ShapedType::isDynamic(size) ||
        __builtin_mul_overflow(bits, static_cast<uint64_t>(size), &bits))
      return std::nullopt;
  }
  return bits / 8 + (bits % 8 != 0);
}
