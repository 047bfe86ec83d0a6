//===- NibbleOps.cpp - Quantized tensors and their parts ------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace nibble;

//===----------------------------------------------------------------------===//
// Rules that several ops share
//===----------------------------------------------------------------------===//

static LogicalResult verifyNoLayout(Operation *op, QuantizedAttr encoding) {
  if (encoding.hasLayout())
    return op->emitOpError() << "the parts of a tensor in layout '"
                             << encoding.getLayout().getName().getValue()
                             << "' are not in logical order (Spec C18)";
  return success();
}

static LogicalResult verifyPart(Operation *op, StringRef name, Type actual,
                                Type expected, StringRef constraint) {
  if (actual == expected)
    return success();
  return op->emitOpError() << "expects " << name << " of type " << expected
                           << ", not " << actual << " (Spec " << constraint
                           << ")";
}

static LogicalResult verifyParameters(Operation *op, RankedTensorType type,
                                      Value scales, Value zeros) {
  if (failed(verifyPart(op, "scales", scales.getType(), getScalesType(type),
                        "C15")))
    return failure();
  if (getQuantization(type).hasZero() != static_cast<bool>(zeros))
    return op->emitOpError()
           << "has zero points exactly when its encoding does (Spec C16)";
  return zeros ? verifyPart(op, "zero points", zeros.getType(),
                            getZerosType(type), "C16")
               : success();
}

static LogicalResult verifyOutliers(Operation *op, RankedTensorType type,
                                    RankedTensorType indices,
                                    RankedTensorType values) {
  if (indices.getRank() == 0)
    return op->emitOpError()
           << "expects outlier indices with a dimension (Spec C17)";
  int64_t count = indices.getDimSize(0);
  if (failed(verifyPart(
          op, "outlier indices", indices,
          getOutlierIndicesType(type, count, indices.getElementType()), "C17")))
    return failure();
  return verifyPart(op, "outlier values", values,
                    getOutlierValuesType(type, count), "C17");
}

//===----------------------------------------------------------------------===//
// Text that several ops share
//===----------------------------------------------------------------------===//

/// Parses `name ( operand )` if it is there.
static ParseResult
parseOptionalPart(OpAsmParser &parser, StringRef name,
                  std::optional<OpAsmParser::UnresolvedOperand> &part) {
  if (failed(parser.parseOptionalKeyword(name)))
    return success();
  part.emplace();
  return failure(parser.parseLParen() || parser.parseOperand(*part) ||
                 parser.parseRParen());
}

/// Parses the type of the result; the types of the parts follow from it.
static ParseResult parseQuantizedType(OpAsmParser &parser,
                                      RankedTensorType &type) {
  SMLoc loc = parser.getCurrentLocation();
  Type any;
  if (parser.parseType(any))
    return failure();
  if (!isQuantized(any))
    return parser.emitError(loc)
           << "expected a tensor type with a #nibble.quantized encoding, not "
           << any;
  type = cast<RankedTensorType>(any);
  return success();
}

/// Resolves scales and zero points, whose presence must match the encoding.
static ParseResult
resolveParameters(OpAsmParser &parser, SMLoc loc, RankedTensorType type,
                  const OpAsmParser::UnresolvedOperand &scales,
                  const std::optional<OpAsmParser::UnresolvedOperand> &zeros,
                  SmallVectorImpl<Value> &operands) {
  if (getQuantization(type).hasZero() != zeros.has_value())
    return parser.emitError(loc)
           << "zero points are given exactly when the encoding has them "
              "(Spec C16)";
  if (parser.resolveOperand(scales, getScalesType(type), operands))
    return failure();
  return zeros ? parser.resolveOperand(*zeros, getZerosType(type), operands)
               : success();
}

static void printPart(OpAsmPrinter &printer, StringRef name, Value part) {
  if (part)
    printer << " " << name << "(" << part << ")";
}

//===----------------------------------------------------------------------===//
// AssembleOp
//===----------------------------------------------------------------------===//

ParseResult AssembleOp::parse(OpAsmParser &parser, OperationState &result) {
  SMLoc loc = parser.getCurrentLocation();
  OpAsmParser::UnresolvedOperand codes;
  std::optional<OpAsmParser::UnresolvedOperand> scales, zeros;
  if (parser.parseOperand(codes) ||
      parseOptionalPart(parser, "scales", scales) ||
      parseOptionalPart(parser, "zeros", zeros))
    return failure();
  if (!scales)
    return parser.emitError(parser.getCurrentLocation())
           << "expected 'scales('";

  OpAsmParser::UnresolvedOperand indices, values;
  Type indicesType, valuesType;
  bool hasOutliers = succeeded(parser.parseOptionalKeyword("outliers"));
  if (hasOutliers &&
      (parser.parseLParen() || parser.parseOperand(indices) ||
       parser.parseComma() || parser.parseOperand(values) ||
       parser.parseColonType(indicesType) || parser.parseComma() ||
       parser.parseType(valuesType) || parser.parseRParen()))
    return failure();

  RankedTensorType type;
  if (parser.parseOptionalAttrDict(result.attributes) || parser.parseColon() ||
      parseQuantizedType(parser, type) ||
      parser.resolveOperand(codes, getCodesType(type), result.operands) ||
      resolveParameters(parser, loc, type, *scales, zeros, result.operands))
    return failure();
  if (hasOutliers &&
      (parser.resolveOperand(indices, indicesType, result.operands) ||
       parser.resolveOperand(values, valuesType, result.operands)))
    return failure();
  result.getOrAddProperties<Properties>().operandSegmentSizes = {
      1, 1, zeros.has_value(), hasOutliers, hasOutliers};
  result.addTypes(type);
  return success();
}

void AssembleOp::print(OpAsmPrinter &printer) {
  printer << " " << getCodes();
  printPart(printer, "scales", getScales());
  printPart(printer, "zeros", getZeros());
  if (getOutlierIndices())
    printer << " outliers(" << getOutlierIndices() << ", " << getOutlierValues()
            << " : " << getOutlierIndices().getType() << ", "
            << getOutlierValues().getType() << ")";
  printer.printOptionalAttrDict((*this)->getAttrs(),
                                {getOperandSegmentSizeAttr()});
  printer << " : " << getType();
}

LogicalResult AssembleOp::verify() {
  RankedTensorType type = getType();
  QuantizedAttr encoding = getQuantization(type);
  if (failed(verifyNoLayout(*this, encoding)) ||
      failed(verifyPart(*this, "codes", getCodes().getType(),
                        getCodesType(type), "C14")) ||
      failed(verifyParameters(*this, type, getScales(), getZeros())))
    return failure();
  if (static_cast<bool>(getOutlierIndices()) != encoding.hasOutliers() ||
      static_cast<bool>(getOutlierValues()) != encoding.hasOutliers())
    return emitOpError()
           << "has outliers exactly when its encoding does (Spec C17)";
  return encoding.hasOutliers()
             ? verifyOutliers(*this, type, getOutlierIndices().getType(),
                              getOutlierValues().getType())
             : success();
}

/// assemble(codes(x), scales(x), zeros(x), outliers(x)) ⇒ x
OpFoldResult AssembleOp::fold(FoldAdaptor) {
  auto codes = getCodes().getDefiningOp<CodesOp>();
  if (!codes || codes.getInput().getType() != getType())
    return {};
  Value whole = codes.getInput();
  auto scales = getScales().getDefiningOp<ScalesOp>();
  if (!scales || scales.getInput() != whole)
    return {};
  if (getZeros()) {
    auto zeros = getZeros().getDefiningOp<ZerosOp>();
    if (!zeros || zeros.getInput() != whole)
      return {};
  }
  if (getOutlierIndices()) {
    auto outliers = getOutlierIndices().getDefiningOp<OutliersOp>();
    if (!outliers || outliers.getInput() != whole ||
        getOutlierIndices() != outliers.getIndices() ||
        getOutlierValues() != outliers.getValues())
      return {};
  }
  return whole;
}

//===----------------------------------------------------------------------===//
// Projections
//===----------------------------------------------------------------------===//

/// The quantized type of an op's only operand, where it has one. Type
/// inference runs before the operands are verified.
static FailureOr<RankedTensorType>
getQuantizedOperand(ValueRange operands, std::optional<Location> location) {
  if (operands.size() == 1 && isQuantized(operands.front().getType()))
    return cast<RankedTensorType>(operands.front().getType());
  return emitOptionalError(location, "expected a quantized tensor");
}

LogicalResult CodesOp::inferReturnTypes(MLIRContext *,
                                        std::optional<Location> location,
                                        Adaptor adaptor,
                                        SmallVectorImpl<Type> &types) {
  auto type = getQuantizedOperand(adaptor.getOperands(), location);
  if (failed(type))
    return failure();
  types.push_back(getCodesType(*type));
  return success();
}

LogicalResult CodesOp::verify() {
  return verifyNoLayout(*this, getQuantization(getInput().getType()));
}

OpFoldResult CodesOp::fold(FoldAdaptor) {
  auto assemble = getInput().getDefiningOp<AssembleOp>();
  return assemble ? assemble.getCodes() : Value();
}

LogicalResult ScalesOp::inferReturnTypes(MLIRContext *,
                                         std::optional<Location> location,
                                         Adaptor adaptor,
                                         SmallVectorImpl<Type> &types) {
  auto type = getQuantizedOperand(adaptor.getOperands(), location);
  if (failed(type))
    return failure();
  types.push_back(getScalesType(*type));
  return success();
}

LogicalResult ScalesOp::verify() {
  return verifyNoLayout(*this, getQuantization(getInput().getType()));
}

OpFoldResult ScalesOp::fold(FoldAdaptor) {
  auto assemble = getInput().getDefiningOp<AssembleOp>();
  return assemble ? assemble.getScales() : Value();
}

LogicalResult ZerosOp::inferReturnTypes(MLIRContext *,
                                        std::optional<Location> location,
                                        Adaptor adaptor,
                                        SmallVectorImpl<Type> &types) {
  auto type = getQuantizedOperand(adaptor.getOperands(), location);
  if (failed(type))
    return failure();
  RankedTensorType zeros = getZerosType(*type);
  if (!zeros)
    return emitOptionalError(location, "the encoding of ", *type,
                             " has no zero point (Spec C19)");
  types.push_back(zeros);
  return success();
}

LogicalResult ZerosOp::verify() {
  return verifyNoLayout(*this, getQuantization(getInput().getType()));
}

OpFoldResult ZerosOp::fold(FoldAdaptor) {
  auto assemble = getInput().getDefiningOp<AssembleOp>();
  return assemble ? assemble.getZeros() : Value();
}

LogicalResult OutliersOp::verify() {
  RankedTensorType type = getInput().getType();
  QuantizedAttr encoding = getQuantization(type);
  if (failed(verifyNoLayout(*this, encoding)))
    return failure();
  if (!encoding.hasOutliers())
    return emitOpError() << "the encoding of " << type
                         << " has no outliers (Spec C19)";
  return verifyOutliers(*this, type, getIndices().getType(),
                        cast<RankedTensorType>(getValues().getType()));
}

LogicalResult OutliersOp::fold(FoldAdaptor,
                               SmallVectorImpl<OpFoldResult> &results) {
  auto assemble = getInput().getDefiningOp<AssembleOp>();
  if (!assemble ||
      assemble.getOutlierIndices().getType() != getIndices().getType() ||
      assemble.getOutlierValues().getType() != getValues().getType())
    return failure();
  results.push_back(assemble.getOutlierIndices());
  results.push_back(assemble.getOutlierValues());
  return success();
}

//===----------------------------------------------------------------------===//
// IntegersOp
//===----------------------------------------------------------------------===//

LogicalResult IntegersOp::inferReturnTypes(MLIRContext *context,
                                           std::optional<Location> location,
                                           Adaptor adaptor,
                                           SmallVectorImpl<Type> &types) {
  auto type = getQuantizedOperand(adaptor.getOperands(), location);
  if (failed(type))
    return failure();
  types.push_back(
      RankedTensorType::get(type->getShape(), IntegerType::get(context, 32)));
  return success();
}

LogicalResult IntegersOp::verify() {
  QuantizedAttr encoding = getQuantization(getInput().getType());
  if (failed(verifyNoLayout(*this, encoding)))
    return failure();
  StorageAttr storage = encoding.getStorage();
  if (!storage.isInteger() || storage.getBitWidth() > 16)
    return emitOpError()
           << "expects codes that are integers of at most 16 bits (Spec C31)";
  if (encoding.hasZero() && !isa<StorageAttr>(encoding.getZero()))
    return emitOpError() << "expects zero points that are integers (Spec C31)";
  if (encoding.hasOutliers())
    return emitOpError() << "expects a tensor without outliers (Spec C31)";
  return success();
}

//===----------------------------------------------------------------------===//
// QuantizeOp, QuantizeDynamicOp, DequantizeOp
//===----------------------------------------------------------------------===//

/// What holds for both ways to quantize an expressed tensor.
static LogicalResult verifyQuantization(Operation *op, Type input,
                                        RankedTensorType type) {
  QuantizedAttr encoding = getQuantization(type);
  if (failed(verifyNoLayout(op, encoding)))
    return failure();
  if (encoding.hasOutliers())
    return op->emitOpError()
           << "cannot choose outliers: split them off and assemble (Spec C20)";
  if (encoding.getStorage().isInteger() &&
      encoding.getStorage().getBitWidth() > 16)
    return op->emitOpError()
           << "quantizes to integers of at most 16 bits (Spec C20)";
  return verifyPart(op, "an input", input, getExpressedType(type), "C20");
}

ParseResult QuantizeOp::parse(OpAsmParser &parser, OperationState &result) {
  SMLoc loc = parser.getCurrentLocation();
  OpAsmParser::UnresolvedOperand input;
  std::optional<OpAsmParser::UnresolvedOperand> scales, zeros;
  if (parser.parseOperand(input) ||
      parseOptionalPart(parser, "scales", scales) ||
      parseOptionalPart(parser, "zeros", zeros))
    return failure();
  if (!scales)
    return parser.emitError(parser.getCurrentLocation())
           << "expected 'scales('";
  RankedTensorType type;
  if (parser.parseOptionalAttrDict(result.attributes) || parser.parseColon() ||
      parseQuantizedType(parser, type) ||
      parser.resolveOperand(input, getExpressedType(type), result.operands) ||
      resolveParameters(parser, loc, type, *scales, zeros, result.operands))
    return failure();
  result.addTypes(type);
  return success();
}

void QuantizeOp::print(OpAsmPrinter &printer) {
  printer << " " << getInput();
  printPart(printer, "scales", getScales());
  printPart(printer, "zeros", getZeros());
  printer.printOptionalAttrDict((*this)->getAttrs());
  printer << " : " << getType();
}

LogicalResult QuantizeOp::verify() {
  if (failed(verifyQuantization(*this, getInput().getType(), getType())))
    return failure();
  return verifyParameters(*this, getType(), getScales(), getZeros());
}

ParseResult QuantizeDynamicOp::parse(OpAsmParser &parser,
                                     OperationState &result) {
  OpAsmParser::UnresolvedOperand input;
  RankedTensorType type;
  if (parser.parseOperand(input) ||
      parser.parseOptionalAttrDict(result.attributes) || parser.parseColon() ||
      parseQuantizedType(parser, type) ||
      parser.resolveOperand(input, getExpressedType(type), result.operands))
    return failure();
  result.addTypes(type);
  return success();
}

void QuantizeDynamicOp::print(OpAsmPrinter &printer) {
  printer << " " << getInput();
  printer.printOptionalAttrDict((*this)->getAttrs());
  printer << " : " << getType();
}

LogicalResult QuantizeDynamicOp::verify() {
  if (failed(verifyQuantization(*this, getInput().getType(), getType())))
    return failure();
  QuantizedAttr encoding = getQuantization(getType());
  if (encoding.hasNestedScale())
    return emitOpError() << "finds scales that are floats (Spec C21)";
  if (encoding.hasZero() && encoding.getZero() != encoding.getStorage())
    return emitOpError()
           << "finds zero points that are codes of the storage (Spec C21)";
  return success();
}

/// The input's type without the encoding (Spec C22).
LogicalResult DequantizeOp::inferReturnTypes(MLIRContext *,
                                             std::optional<Location> location,
                                             Adaptor adaptor,
                                             SmallVectorImpl<Type> &types) {
  auto type = getQuantizedOperand(adaptor.getOperands(), location);
  if (failed(type))
    return failure();
  types.push_back(getExpressedType(*type));
  return success();
}

//===----------------------------------------------------------------------===//
// MatmulOp
//===----------------------------------------------------------------------===//

LogicalResult MatmulOp::inferReturnTypes(MLIRContext *,
                                         std::optional<Location> location,
                                         Adaptor adaptor,
                                         SmallVectorImpl<Type> &types) {
  ValueRange operands = adaptor.getOperands();
  auto activations = dyn_cast<RankedTensorType>(operands[0].getType());
  auto weight = dyn_cast<RankedTensorType>(operands[1].getType());
  if (!activations || activations.getRank() < 1 || !isQuantized(weight) ||
      weight.getRank() != 2)
    return emitOptionalError(
        location, "expected activations with at least one dimension and a "
                  "quantized weight with two (Spec C23)");
  bool transposed = adaptor.getTransposeWeight();
  int64_t activationsK = activations.getShape().back();
  int64_t weightK = weight.getDimSize(transposed ? 1 : 0);
  if (ShapedType::isStatic(activationsK) && ShapedType::isStatic(weightK) &&
      activationsK != weightK)
    return emitOptionalError(location, "the activations sum over ",
                             activationsK, " values and the weight over ",
                             weightK, " (Spec C23)");
  SmallVector<int64_t> shape = llvm::to_vector(activations.getShape());
  shape.back() = weight.getDimSize(transposed ? 0 : 1);
  types.push_back(RankedTensorType::get(shape, activations.getElementType()));
  return success();
}

LogicalResult MatmulOp::verify() {
  if (getBias()) {
    RankedTensorType result = getResult().getType();
    auto expected = RankedTensorType::get({result.getShape().back()},
                                          result.getElementType());
    if (failed(
            verifyPart(*this, "a bias", getBias().getType(), expected, "C24")))
      return failure();
  }
  Type compute = getComputeType();
  if (!isa<Float32Type, Float16Type, BFloat16Type>(compute) &&
      !compute.isSignlessInteger(8))
    return emitOpError() << "computes in f32, f16, bf16 or i8, not " << compute
                         << " (Spec C25)";
  if (compute.isInteger() && getQuantization(getWeight().getType()).getFlat())
    return emitOpError() << "computes in i8 only where the weight's blocks are "
                            "not flat (Spec C25)";
  return success();
}

//===----------------------------------------------------------------------===//
// GatherOp
//===----------------------------------------------------------------------===//

LogicalResult GatherOp::inferReturnTypes(MLIRContext *,
                                         std::optional<Location> location,
                                         Adaptor adaptor,
                                         SmallVectorImpl<Type> &types) {
  ValueRange operands = adaptor.getOperands();
  auto table = dyn_cast<RankedTensorType>(operands[0].getType());
  auto indices = dyn_cast<RankedTensorType>(operands[1].getType());
  if (!isQuantized(table) || !indices)
    return emitOptionalError(location,
                             "expected a quantized table and a tensor of "
                             "indices (Spec C26)");
  int64_t axis = adaptor.getAxis();
  if (axis < 0 || axis >= table.getRank())
    return emitOptionalError(location, "dimension ", axis,
                             " is none of the table's ", table.getRank(),
                             " (Spec C26)");
  SmallVector<int64_t> shape(table.getShape().take_front(axis));
  llvm::append_range(shape, indices.getShape());
  llvm::append_range(shape, table.getShape().drop_front(axis + 1));
  types.push_back(RankedTensorType::get(shape, table.getElementType()));
  return success();
}

//===----------------------------------------------------------------------===//
// ObserveOp
//===----------------------------------------------------------------------===//

LogicalResult ObserveOp::verify() {
  if (getId().empty())
    return emitOpError() << "needs an id (Spec C27)";
  return success();
}

#define GET_OP_CLASSES
#include "nibble/Dialect/Nibble/IR/NibbleOps.cpp.inc"
