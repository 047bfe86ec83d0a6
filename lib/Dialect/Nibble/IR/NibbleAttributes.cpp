//===- NibbleAttributes.cpp - How a tensor is stored ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/IR/NibbleAttributes.h"

#include "nibble/Dialect/Nibble/IR/NibbleDialect.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/IR/OpImplementation.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/MathExtras.h"

#include <cmath>
#include <optional>

using namespace mlir;
using namespace nibble;

using EmitError = function_ref<InFlightDiagnostic()>;

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

/// Keyword of a kind that has only one format; empty for the others.
static StringRef getKeyword(CodeKind kind) {
  switch (kind) {
  case CodeKind::F8E4M3FN:
    return "f8E4M3FN";
  case CodeKind::F8E5M2:
    return "f8E5M2";
  case CodeKind::F4E2M1FN:
    return "f4E2M1FN";
  case CodeKind::NF4:
    return "nf4";
  case CodeKind::FP4:
    return "fp4";
  case CodeKind::SignedInteger:
  case CodeKind::UnsignedInteger:
  case CodeKind::CodeBook:
    return "";
  }
  return "";
}

static std::optional<CodeKind> getKindOfKeyword(StringRef keyword) {
  for (CodeKind kind : {CodeKind::F8E4M3FN, CodeKind::F8E5M2,
                        CodeKind::F4E2M1FN, CodeKind::NF4, CodeKind::FP4})
    if (keyword == getKeyword(kind))
      return kind;
  return std::nullopt;
}

/// Splits `i4` or `u4`; the width is not checked.
static std::optional<std::pair<bool, unsigned>>
parseIntegerKeyword(StringRef keyword) {
  bool isSigned = keyword.starts_with("i");
  unsigned bitWidth;
  if ((!isSigned && !keyword.starts_with("u")) ||
      keyword.drop_front().getAsInteger(10, bitWidth))
    return std::nullopt;
  return std::make_pair(isSigned, bitWidth);
}

static Type getFloatType(MLIRContext *context, StringRef keyword) {
  return llvm::StringSwitch<function_ref<Type(MLIRContext *)>>(keyword)
      .Case("f64", [](MLIRContext *c) -> Type { return Float64Type::get(c); })
      .Case("f32", [](MLIRContext *c) -> Type { return Float32Type::get(c); })
      .Case("f16", [](MLIRContext *c) -> Type { return Float16Type::get(c); })
      .Case("bf16", [](MLIRContext *c) -> Type { return BFloat16Type::get(c); })
      .Case("f8E4M3FN",
            [](MLIRContext *c) -> Type { return Float8E4M3FNType::get(c); })
      .Case("f8E8M0FNU",
            [](MLIRContext *c) -> Type { return Float8E8M0FNUType::get(c); })
      .Default([](MLIRContext *) { return Type(); })(context);
}

//===----------------------------------------------------------------------===//
// StorageAttr
//===----------------------------------------------------------------------===//

unsigned StorageAttr::getFixedBitWidth(CodeKind kind) {
  switch (kind) {
  case CodeKind::F8E4M3FN:
  case CodeKind::F8E5M2:
    return 8;
  case CodeKind::F4E2M1FN:
  case CodeKind::NF4:
  case CodeKind::FP4:
    return 4;
  case CodeKind::SignedInteger:
  case CodeKind::UnsignedInteger:
  case CodeKind::CodeBook:
    return 0;
  }
  return 0;
}

static unsigned getCodeBookBitWidth(size_t size) {
  return llvm::Log2_64_Ceil(std::max<size_t>(size, 1));
}

StorageAttr StorageAttr::getInteger(MLIRContext *context, unsigned bitWidth,
                                    bool isSigned) {
  return get(context,
             isSigned ? CodeKind::SignedInteger : CodeKind::UnsignedInteger,
             bitWidth, DenseF32ArrayAttr());
}

StorageAttr StorageAttr::getCodeBook(MLIRContext *context,
                                     ArrayRef<float> values) {
  return get(context, CodeKind::CodeBook, getCodeBookBitWidth(values.size()),
             DenseF32ArrayAttr::get(context, values));
}

static LogicalResult verifyCodeBook(EmitError emitError, unsigned bitWidth,
                                    DenseF32ArrayAttr values) {
  size_t size = values ? values.size() : 0;
  if (size < 2 || size > 256)
    return emitError() << "a code book has 2 to 256 values, not " << size
                       << " (Spec C2)";
  ArrayRef<float> list = values.asArrayRef();
  for (size_t i = 0; i < size; ++i) {
    if (!std::isfinite(list[i]) || (list[i] == 0 && std::signbit(list[i])))
      return emitError() << "value " << i
                         << " of the code book must be finite and not negative "
                            "zero (Spec C2)";
    if (i > 0 && !(list[i - 1] < list[i]))
      return emitError()
             << "the values of a code book must ascend strictly, but value "
             << i << " does not exceed the one before (Spec C2)";
  }
  if (bitWidth != getCodeBookBitWidth(size))
    return emitError() << "a code book of " << size << " values takes "
                       << getCodeBookBitWidth(size) << " bits, not " << bitWidth
                       << " (Spec C2)";
  return success();
}

LogicalResult StorageAttr::verify(EmitError emitError, CodeKind kind,
                                  unsigned bitWidth, DenseF32ArrayAttr values) {
  if (kind == CodeKind::CodeBook)
    return verifyCodeBook(emitError, bitWidth, values);
  if (values)
    return emitError() << "only an inline code book lists values (Spec C2)";
  bool known = bitWidth == getFixedBitWidth(kind);
  if (kind == CodeKind::SignedInteger)
    known =
        (bitWidth >= 2 && bitWidth <= 8) || bitWidth == 16 || bitWidth == 32;
  else if (kind == CodeKind::UnsignedInteger)
    known = (bitWidth >= 2 && bitWidth <= 8) || bitWidth == 16;
  if (!known)
    return emitError() << "integer storage is i2 to i8, i16, i32, u2 to u8 or "
                          "u16, not one of "
                       << bitWidth << " bits (Spec C1)";
  return success();
}

Type StorageAttr::getCodeType() const {
  MLIRContext *context = getContext();
  switch (getKind()) {
  case CodeKind::SignedInteger:
    return IntegerType::get(context, getBitWidth());
  case CodeKind::F8E4M3FN:
    return Float8E4M3FNType::get(context);
  case CodeKind::F8E5M2:
    return Float8E5M2Type::get(context);
  case CodeKind::F4E2M1FN:
    return Float4E2M1FNType::get(context);
  case CodeKind::UnsignedInteger:
  case CodeKind::NF4:
  case CodeKind::FP4:
  case CodeKind::CodeBook:
    return IntegerType::get(context, getBitWidth(), IntegerType::Unsigned);
  }
  return Type();
}

int64_t StorageAttr::getMinimumCode() const {
  return isSigned() ? -(int64_t(1) << (getBitWidth() - 1)) : 0;
}

int64_t StorageAttr::getMaximumCode() const {
  if (getKind() == CodeKind::CodeBook)
    return getValues().size() - 1;
  return (int64_t(1) << (getBitWidth() - isSigned())) - 1;
}

static StorageAttr parseStorage(AsmParser &parser) {
  SMLoc loc = parser.getCurrentLocation();
  MLIRContext *context = parser.getContext();
  StringRef keyword;
  if (parser.parseKeyword(&keyword))
    return {};
  if (auto integer = parseIntegerKeyword(keyword))
    return parser.getChecked<StorageAttr>(
        loc, context,
        integer->first ? CodeKind::SignedInteger : CodeKind::UnsignedInteger,
        integer->second, DenseF32ArrayAttr());
  if (auto kind = getKindOfKeyword(keyword))
    return StorageAttr::get(context, *kind);
  if (keyword != "codebook") {
    parser.emitError(loc) << "unknown storage '" << keyword
                          << "': expected i2 to i8, i16, i32, u2 to u8, u16, "
                             "f8E4M3FN, f8E5M2, f4E2M1FN, nf4, fp4 or "
                             "codebook<[...]> (Spec C1)";
    return {};
  }
  SmallVector<float> values;
  auto parseValue = [&]() -> ParseResult {
    APFloat value(APFloat::IEEEsingle());
    if (parser.parseFloat(APFloat::IEEEsingle(), value))
      return failure();
    values.push_back(value.convertToFloat());
    return success();
  };
  if (parser.parseLess() ||
      parser.parseCommaSeparatedList(AsmParser::Delimiter::Square,
                                     parseValue) ||
      parser.parseGreater())
    return {};
  return parser.getChecked<StorageAttr>(
      loc, context, CodeKind::CodeBook, getCodeBookBitWidth(values.size()),
      DenseF32ArrayAttr::get(context, values));
}

static void printStorage(AsmPrinter &printer, StorageAttr storage) {
  if (storage.isInteger()) {
    printer << (storage.isSigned() ? "i" : "u") << storage.getBitWidth();
  } else if (storage.getKind() == CodeKind::CodeBook) {
    printer << "codebook<[";
    llvm::interleaveComma(
        storage.getValues().asArrayRef(), printer.getStream(),
        [&](float value) { printer.printFloat(APFloat(value)); });
    printer << "]>";
  } else {
    printer << getKeyword(storage.getKind());
  }
}

Attribute StorageAttr::parse(AsmParser &parser, Type) {
  if (parser.parseLess())
    return {};
  StorageAttr storage = parseStorage(parser);
  if (!storage || parser.parseGreater())
    return {};
  return storage;
}

void StorageAttr::print(AsmPrinter &printer) const {
  printer << "<";
  printStorage(printer, *this);
  printer << ">";
}

//===----------------------------------------------------------------------===//
// OutliersAttr
//===----------------------------------------------------------------------===//

LogicalResult OutliersAttr::verify(EmitError emitError, OutlierKind kind,
                                   int64_t axis, Type valueType) {
  if (!isa<Float32Type, Float16Type, BFloat16Type>(valueType))
    return emitError() << "outliers are stored as f32, f16 or bf16, not "
                       << valueType << " (Spec C9)";
  if (axis < 0 || (kind == OutlierKind::Sparse && axis != 0))
    return emitError() << "invalid outlier dimension " << axis << " (Spec C9)";
  return success();
}

static OutliersAttr parseOutliers(AsmParser &parser) {
  SMLoc loc = parser.getCurrentLocation();
  StringRef keyword;
  if (parser.parseKeyword(&keyword))
    return {};
  if (keyword != "columns" && keyword != "sparse") {
    parser.emitError(loc) << "unknown outliers '" << keyword
                          << "': expected columns<dimension, type> or "
                             "sparse<type> (Spec C9)";
    return {};
  }
  bool columns = keyword == "columns";
  int64_t axis = 0;
  Type valueType;
  if (parser.parseLess() ||
      (columns && (parser.parseInteger(axis) || parser.parseComma())) ||
      parser.parseType(valueType) || parser.parseGreater())
    return {};
  return parser.getChecked<OutliersAttr>(
      loc, parser.getContext(),
      columns ? OutlierKind::Columns : OutlierKind::Sparse, axis, valueType);
}

static void printOutliers(AsmPrinter &printer, OutliersAttr outliers) {
  if (outliers.getKind() == OutlierKind::Columns)
    printer << "columns<" << outliers.getAxis() << ", "
            << outliers.getValueType() << ">";
  else
    printer << "sparse<" << outliers.getValueType() << ">";
}

Attribute OutliersAttr::parse(AsmParser &parser, Type) {
  if (parser.parseLess())
    return {};
  OutliersAttr outliers = parseOutliers(parser);
  if (!outliers || parser.parseGreater())
    return {};
  return outliers;
}

void OutliersAttr::print(AsmPrinter &printer) const {
  printer << "<";
  printOutliers(printer, *this);
  printer << ">";
}

//===----------------------------------------------------------------------===//
// LayoutAttr
//===----------------------------------------------------------------------===//

LogicalResult LayoutAttr::verify(EmitError emitError, StringAttr name,
                                 DictionaryAttr parameters) {
  auto isWord = [](char c) { return llvm::isAlnum(c) || c == '_'; };
  if (!name || name.empty() || llvm::isDigit(name.getValue().front()) ||
      !llvm::all_of(name.getValue(), isWord))
    return emitError() << "a layout's name is a word of letters, digits and "
                          "underscores (Spec C13)";
  if (!parameters)
    return emitError()
           << "a layout without parameters has an empty dictionary (Spec C13)";
  return success();
}

static LayoutAttr parseLayout(AsmParser &parser) {
  SMLoc loc = parser.getCurrentLocation();
  StringRef name;
  NamedAttrList parameters;
  if (parser.parseKeyword(&name) || parser.parseOptionalAttrDict(parameters))
    return {};
  MLIRContext *context = parser.getContext();
  return parser.getChecked<LayoutAttr>(loc, context,
                                       StringAttr::get(context, name),
                                       parameters.getDictionary(context));
}

static void printLayout(AsmPrinter &printer, LayoutAttr layout) {
  printer << layout.getName().getValue();
  if (!layout.getParameters().empty())
    printer << " " << layout.getParameters();
}

Attribute LayoutAttr::parse(AsmParser &parser, Type) {
  if (parser.parseLess())
    return {};
  LayoutAttr layout = parseLayout(parser);
  if (!layout || parser.parseGreater())
    return {};
  return layout;
}

void LayoutAttr::print(AsmPrinter &printer) const {
  printer << "<";
  printLayout(printer, *this);
  printer << ">";
}

//===----------------------------------------------------------------------===//
// QuantizedAttr: text
//===----------------------------------------------------------------------===//

/// Encodings in encodings, the outermost included (Spec C8).
static constexpr unsigned kMaximumDepth = 3;

static QuantizedAttr parseQuantized(AsmParser &parser, unsigned depth);

static ParseResult parseBlock(AsmParser &parser,
                              SmallVectorImpl<int64_t> &block, bool &flat) {
  flat = succeeded(parser.parseOptionalKeyword("flat"));
  return parser.parseCommaSeparatedList(
      AsmParser::Delimiter::Square, [&]() -> ParseResult {
        if (succeeded(parser.parseOptionalStar())) {
          block.push_back(QuantizedAttr::kWholeExtent);
          return success();
        }
        SMLoc loc = parser.getCurrentLocation();
        int64_t extent = 0;
        if (parser.parseInteger(extent))
          return failure();
        // Here and not in the verifier: -1 is the whole extent in memory.
        if (extent <= 0)
          return parser.emitError(loc)
                 << "a block extent is positive or *, not " << extent
                 << " (Spec C3)";
        block.push_back(extent);
        return success();
      });
}

/// A scale or zero point: a float type, an integer storage, or nested.
static ParseResult parseParameter(AsmParser &parser, unsigned depth,
                                  Attribute &parameter) {
  SMLoc loc = parser.getCurrentLocation();
  StringRef keyword;
  if (parser.parseKeyword(&keyword))
    return failure();
  if (keyword == "quantized") {
    parameter = parseQuantized(parser, depth + 1);
    return success(static_cast<bool>(parameter));
  }
  MLIRContext *context = parser.getContext();
  if (Type type = getFloatType(context, keyword)) {
    parameter = TypeAttr::get(type);
    return success();
  }
  if (auto integer = parseIntegerKeyword(keyword)) {
    parameter = parser.getChecked<StorageAttr>(
        loc, context,
        integer->first ? CodeKind::SignedInteger : CodeKind::UnsignedInteger,
        integer->second, DenseF32ArrayAttr());
    return success(static_cast<bool>(parameter));
  }
  return parser.emitError(loc)
         << "unknown type '" << keyword
         << "': expected a float type, an integer storage or quantized<...> "
            "(Spec C5, C6)";
}

namespace {
/// The parameters of an encoding while they are read.
struct QuantizedBody {
  SmallVector<int64_t> block;
  bool flat = false;
  bool hasBlock = false;
  Attribute scale;
  Attribute zero;
  OutliersAttr outliers;
  LayoutAttr layout;
};
} // namespace

static ParseResult parseField(AsmParser &parser, unsigned depth,
                              QuantizedBody &body) {
  SMLoc loc = parser.getCurrentLocation();
  StringRef key;
  if (parser.parseKeyword(&key) || parser.parseEqual())
    return failure();
  if (key == "block" && !body.hasBlock) {
    body.hasBlock = true;
    return parseBlock(parser, body.block, body.flat);
  }
  if (key == "scale" && !body.scale)
    return parseParameter(parser, depth, body.scale);
  if (key == "zero" && !body.zero)
    return parseParameter(parser, depth, body.zero);
  if (key == "outliers" && !body.outliers)
    return success(static_cast<bool>(body.outliers = parseOutliers(parser)));
  if (key == "layout" && !body.layout)
    return success(static_cast<bool>(body.layout = parseLayout(parser)));
  return parser.emitError(loc)
         << "unknown or repeated '" << key
         << "': expected block, scale, zero, outliers or layout, once each";
}

/// Parses `<` body `>`.
static QuantizedAttr parseQuantized(AsmParser &parser, unsigned depth) {
  SMLoc loc = parser.getCurrentLocation();
  if (depth > kMaximumDepth) {
    parser.emitError(loc) << "encodings nest at most " << kMaximumDepth
                          << " deep (Spec C8)";
    return {};
  }
  if (parser.parseLess())
    return {};
  StorageAttr storage = parseStorage(parser);
  if (!storage)
    return {};
  QuantizedBody body;
  while (succeeded(parser.parseOptionalComma()))
    if (parseField(parser, depth, body))
      return {};
  if (!body.hasBlock || !body.scale) {
    parser.emitError(parser.getCurrentLocation())
        << "an encoding needs 'block = ...' and 'scale = ...'";
    return {};
  }
  if (parser.parseGreater())
    return {};
  return parser.getChecked<QuantizedAttr>(loc, storage, body.block, body.flat,
                                          body.scale, body.zero, body.outliers,
                                          body.layout);
}

static void printQuantized(AsmPrinter &printer, QuantizedAttr encoding);

static void printParameter(AsmPrinter &printer, Attribute parameter) {
  if (auto nested = dyn_cast<QuantizedAttr>(parameter)) {
    printer << "quantized";
    printQuantized(printer, nested);
  } else if (auto storage = dyn_cast<StorageAttr>(parameter)) {
    printStorage(printer, storage);
  } else {
    printer << cast<TypeAttr>(parameter).getValue();
  }
}

static void printQuantized(AsmPrinter &printer, QuantizedAttr encoding) {
  printer << "<";
  printStorage(printer, encoding.getStorage());
  printer << ", block = " << (encoding.getFlat() ? "flat [" : "[");
  llvm::interleaveComma(encoding.getBlock(), printer.getStream(),
                        [&](int64_t extent) {
                          if (extent == QuantizedAttr::kWholeExtent)
                            printer << "*";
                          else
                            printer << extent;
                        });
  printer << "], scale = ";
  printParameter(printer, encoding.getScale());
  if (encoding.hasZero()) {
    printer << ", zero = ";
    printParameter(printer, encoding.getZero());
  }
  if (encoding.hasOutliers()) {
    printer << ", outliers = ";
    printOutliers(printer, encoding.getOutliers());
  }
  if (encoding.hasLayout()) {
    printer << ", layout = ";
    printLayout(printer, encoding.getLayout());
  }
  printer << ">";
}

Attribute QuantizedAttr::parse(AsmParser &parser, Type) {
  return parseQuantized(parser, /*depth=*/1);
}

void QuantizedAttr::print(AsmPrinter &printer) const {
  printQuantized(printer, *this);
}

//===----------------------------------------------------------------------===//
// QuantizedAttr: rules
//===----------------------------------------------------------------------===//

static unsigned getDepth(Attribute parameter) {
  auto nested = dyn_cast_if_present<QuantizedAttr>(parameter);
  if (!nested)
    return 0;
  return 1 + std::max(getDepth(nested.getScale()), getDepth(nested.getZero()));
}

static LogicalResult verifyBlock(EmitError emitError, ArrayRef<int64_t> block,
                                 bool flat) {
  for (int64_t extent : block)
    if (extent <= 0 && extent != QuantizedAttr::kWholeExtent)
      return emitError() << "a block extent is positive or *, not " << extent
                         << " (Spec C3)";
  if (flat && (block.size() != 1 || block[0] == QuantizedAttr::kWholeExtent))
    return emitError() << "a flat block has exactly one extent, a number "
                          "(Spec C4)";
  return success();
}

static LogicalResult verifyNested(EmitError emitError, QuantizedAttr nested) {
  if (nested.hasOutliers() || nested.hasLayout())
    return emitError()
           << "a nested encoding has no outliers and no layout (Spec C8)";
  if (1 + getDepth(nested) > kMaximumDepth)
    return emitError() << "encodings nest at most " << kMaximumDepth
                       << " deep (Spec C8)";
  return success();
}

static LogicalResult verifyScale(EmitError emitError, Attribute scale) {
  if (auto nested = dyn_cast_if_present<QuantizedAttr>(scale))
    return verifyNested(emitError, nested);
  auto type = dyn_cast_if_present<TypeAttr>(scale);
  if (type && isa<Float32Type, Float16Type, BFloat16Type, Float8E8M0FNUType>(
                  type.getValue()))
    return success();
  return emitError() << "a scale is f32, f16, bf16, f8E8M0FNU or "
                        "quantized<...> (Spec C5)";
}

static LogicalResult verifyZero(EmitError emitError, StorageAttr storage,
                                Attribute zero) {
  if (!zero)
    return success();
  if (!storage.isInteger() || storage.getBitWidth() > 16)
    return emitError() << "only integer storage of at most 16 bits has a zero "
                          "point (Spec C7)";
  if (auto nested = dyn_cast<QuantizedAttr>(zero))
    return verifyNested(emitError, nested);
  if (auto integer = dyn_cast<StorageAttr>(zero))
    if (integer.isInteger() && integer.getBitWidth() <= 16)
      return success();
  if (auto type = dyn_cast<TypeAttr>(zero))
    if (isa<Float32Type, Float16Type, BFloat16Type>(type.getValue()))
      return success();
  return emitError() << "a zero point is an integer of at most 16 bits, f32, "
                        "f16, bf16 or quantized<...> (Spec C6)";
}

LogicalResult QuantizedAttr::verify(EmitError emitError, StorageAttr storage,
                                    ArrayRef<int64_t> block, bool flat,
                                    Attribute scale, Attribute zero,
                                    OutliersAttr outliers, LayoutAttr layout) {
  if (!storage)
    return emitError() << "an encoding needs a storage (Spec C1)";
  if (failed(verifyBlock(emitError, block, flat)) ||
      failed(verifyScale(emitError, scale)))
    return failure();
  return verifyZero(emitError, storage, zero);
}

/// The number of elements: dynamic where a dimension is, none where it
/// overflows.
static std::optional<int64_t> getElementCount(ArrayRef<int64_t> shape) {
  if (ShapedType::isDynamicShape(shape))
    return ShapedType::kDynamic;
  int64_t count = 1;
  for (int64_t size : shape)
    if (llvm::MulOverflow(count, size, count))
      return std::nullopt;
  return count;
}

LogicalResult QuantizedAttr::verifyEncoding(ArrayRef<int64_t> shape,
                                            Type elementType,
                                            EmitError emitError) const {
  if (!isa<Float32Type, Float16Type, BFloat16Type>(elementType))
    return emitError() << "a quantized tensor expresses f32, f16 or bf16, not "
                       << elementType << " (Spec C10)";
  if (!getFlat() && getBlock().size() != shape.size())
    return emitError() << "the block has " << getBlock().size()
                       << " extents and the tensor " << shape.size()
                       << " dimensions (Spec C11)";
  if (getFlat() && !getElementCount(shape))
    return emitError() << "a flat block numbers the elements, and there are "
                          "more than 2^63 (Spec C4)";
  if (hasOutliers() && getOutliers().getKind() == OutlierKind::Columns &&
      getOutliers().getAxis() >= static_cast<int64_t>(shape.size()))
    return emitError() << "the outliers' dimension " << getOutliers().getAxis()
                       << " is none of the tensor's " << shape.size()
                       << " (Spec C12)";
  // The grid is a tensor of its own.
  SmallVector<int64_t> grid = getGridShape(shape);
  Type f32 = Float32Type::get(getContext());
  for (Attribute parameter : {getScale(), getZero()})
    if (auto nested = dyn_cast_if_present<QuantizedAttr>(parameter))
      if (failed(nested.verifyEncoding(grid, f32, emitError)))
        return failure();
  return success();
}

//===----------------------------------------------------------------------===//
// QuantizedAttr: what follows from it
//===----------------------------------------------------------------------===//

bool QuantizedAttr::hasNestedScale() const {
  return isa<QuantizedAttr>(getScale());
}

bool QuantizedAttr::hasNestedZero() const {
  return isa_and_present<QuantizedAttr>(getZero());
}

static int64_t getGridExtent(int64_t size, int64_t block) {
  if (block == QuantizedAttr::kWholeExtent)
    return 1;
  if (ShapedType::isDynamic(size))
    return ShapedType::kDynamic;
  return llvm::divideCeil(static_cast<uint64_t>(size),
                          static_cast<uint64_t>(block));
}

SmallVector<int64_t>
QuantizedAttr::getGridShape(ArrayRef<int64_t> shape) const {
  if (getFlat()) {
    // The verifier refuses a count that overflows.
    int64_t count = getElementCount(shape).value_or(ShapedType::kDynamic);
    return {getGridExtent(count, getBlock().front())};
  }
  SmallVector<int64_t> grid;
  for (auto [size, extent] : llvm::zip(shape, getBlock()))
    grid.push_back(getGridExtent(size, extent));
  return grid;
}

QuantizedAttr QuantizedAttr::withLayout(LayoutAttr layout) const {
  return get(getStorage(), getBlock(), getFlat(), getScale(), getZero(),
             getOutliers(), layout);
}

//===----------------------------------------------------------------------===//
// Types of the parts
//===----------------------------------------------------------------------===//

QuantizedAttr nibble::getQuantization(Type type) {
  auto tensor = dyn_cast_if_present<RankedTensorType>(type);
  return tensor ? dyn_cast_if_present<QuantizedAttr>(tensor.getEncoding())
                : QuantizedAttr();
}

RankedTensorType nibble::getExpressedType(RankedTensorType type) {
  if (!isQuantized(type))
    return type;
  return RankedTensorType::get(type.getShape(), type.getElementType());
}

RankedTensorType nibble::getCodesType(RankedTensorType type) {
  return RankedTensorType::get(
      type.getShape(), getQuantization(type).getStorage().getCodeType());
}

/// The tensor of one scale or zero point a block.
static RankedTensorType getParametersType(RankedTensorType type,
                                          Attribute parameter) {
  SmallVector<int64_t> grid =
      getQuantization(type).getGridShape(type.getShape());
  if (auto nested = dyn_cast<QuantizedAttr>(parameter))
    return RankedTensorType::get(grid, Float32Type::get(type.getContext()),
                                 nested);
  if (auto storage = dyn_cast<StorageAttr>(parameter))
    return RankedTensorType::get(grid, storage.getCodeType());
  return RankedTensorType::get(grid, cast<TypeAttr>(parameter).getValue());
}

RankedTensorType nibble::getScalesType(RankedTensorType type) {
  return getParametersType(type, getQuantization(type).getScale());
}

RankedTensorType nibble::getZerosType(RankedTensorType type) {
  QuantizedAttr encoding = getQuantization(type);
  return encoding.hasZero() ? getParametersType(type, encoding.getZero())
                            : RankedTensorType();
}

RankedTensorType nibble::getOutlierIndicesType(RankedTensorType type,
                                               int64_t count, Type indexType) {
  OutliersAttr outliers = getQuantization(type).getOutliers();
  if (!outliers)
    return {};
  SmallVector<int64_t> shape = {count};
  if (outliers.getKind() == OutlierKind::Sparse)
    shape.push_back(type.getRank());
  return RankedTensorType::get(shape, indexType);
}

RankedTensorType nibble::getOutlierValuesType(RankedTensorType type,
                                              int64_t count) {
  OutliersAttr outliers = getQuantization(type).getOutliers();
  if (!outliers)
    return {};
  SmallVector<int64_t> shape = {count};
  if (outliers.getKind() == OutlierKind::Columns) {
    shape = llvm::to_vector(type.getShape());
    shape[outliers.getAxis()] = count;
  }
  return RankedTensorType::get(shape, outliers.getValueType());
}

//===----------------------------------------------------------------------===//
// Registration
//===----------------------------------------------------------------------===//

#define GET_ATTRDEF_CLASSES
#include "nibble/Dialect/Nibble/IR/NibbleAttributes.cpp.inc"

void NibbleDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "nibble/Dialect/Nibble/IR/NibbleAttributes.cpp.inc"
      >();
}

//===----------------------------------------------------------------------===//
// Code books
//===----------------------------------------------------------------------===//

SmallVector<float> nibble::getCodeBookValues(StorageAttr storage) {
  if (storage.getKind() == CodeKind::CodeBook)
    return llvm::to_vector(storage.getValues().asArrayRef());
  if (storage.getKind() == CodeKind::NF4)
    return {-1.0f,
            -0.6961928009986877f,
            -0.5250730514526367f,
            -0.39491748809814453f,
            -0.28444138169288635f,
            -0.18477343022823334f,
            -0.09105003625154495f,
            0.0f,
            0.07958029955625534f,
            0.16093020141124725f,
            0.24611230194568634f,
            0.33791524171829224f,
            0.44070982933044434f,
            0.5626170039176941f,
            0.7229568362236023f,
            1.0f};
  SmallVector<float> values;
  for (float sign : {1.0f, -1.0f})
    for (float value : {0.0f, 0.0625f, 8.0f, 12.0f, 4.0f, 6.0f, 2.0f, 3.0f})
      values.push_back(sign * (value / 12.0f));
  return values;
}

IntegerCodeBook nibble::getIntegerCodeBook(StorageAttr storage) {
  SmallVector<float> values = getCodeBookValues(storage);
  float largest = 0;
  for (float value : values)
    largest = std::max(largest, std::fabs(value));
  IntegerCodeBook book;
  if (largest > 0)
    book.step = largest / 127;
  for (float value : values)
    book.values.push_back(
        static_cast<int8_t>(std::nearbyint(value / book.step)));
  return book;
}
