//===- OnnxAttrs.cpp - Attributes of the onnx dialect ---------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/Format.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

#define GET_ATTRDEF_CLASSES
#include "nibble/Dialect/Onnx/IR/OnnxAttrs.cpp.inc"

void OnnxDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "nibble/Dialect/Onnx/IR/OnnxAttrs.cpp.inc"
      >();
}

//===----------------------------------------------------------------------===//
// DimsAttr
//===----------------------------------------------------------------------===//

Attribute DimsAttr::parse(AsmParser &parser, Type) {
  SmallVector<StringAttr> symbols;
  auto parseSymbol = [&]() -> ParseResult {
    if (succeeded(parser.parseOptionalQuestion())) {
      symbols.push_back({});
      return success();
    }
    return parser.parseAttribute(symbols.emplace_back());
  };
  if (parser.parseCommaSeparatedList(AsmParser::Delimiter::LessGreater,
                                     parseSymbol))
    return {};
  return DimsAttr::get(parser.getContext(), symbols);
}

void DimsAttr::print(AsmPrinter &printer) const {
  printer << "<";
  llvm::interleaveComma(getSymbols(), printer, [&](StringAttr symbol) {
    if (symbol)
      printer << symbol;
    else
      printer << "?";
  });
  printer << ">";
}

LogicalResult
DimsAttr::verifyEncoding(ArrayRef<int64_t> shape, Type elementType,
                         function_ref<InFlightDiagnostic()> emitError) const {
  size_t dynamic = llvm::count_if(shape, ShapedType::isDynamic);
  if (getSymbols().size() != dynamic)
    return emitError() << "onnx.dims has " << getSymbols().size()
                       << " entries for a tensor with " << dynamic
                       << " dynamic dimensions";
  return success();
}

//===----------------------------------------------------------------------===//
// FileElementsAttr
//===----------------------------------------------------------------------===//

ArrayRef<char> FileElementsAttr::getBytes() const {
  auto *dialect = getContext()->getLoadedDialect<OnnxDialect>();
  auto file = dialect->getFiles().get(getPath());
  if (!file) {
    llvm::consumeError(file.takeError());
    return {};
  }
  ArrayRef<char> bytes = (*file)->getBytes();
  if (getOffset() > bytes.size() || getLength() > bytes.size() - getOffset())
    return {};
  return bytes.slice(getOffset(), getLength());
}

LogicalResult
FileElementsAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                         ShapedType type, StringAttr path, uint64_t offset,
                         uint64_t length, bool varint) {
  auto *dialect = path.getContext()->getOrLoadDialect<OnnxDialect>();
  auto file = dialect->getFiles().get(path);
  if (!file)
    return emitError() << llvm::toString(file.takeError())
                       << "; relative paths of weights start at the working "
                          "directory";
  size_t size = (*file)->getBytes().size();
  if (offset > size || length > size - offset)
    return emitError() << "'" << path.getValue() << "' has " << size
                       << " bytes, too few for " << length << " at " << offset;
  std::optional<uint64_t> expected = getPackedSize(type);
  if (!expected || (!varint && *expected != length))
    return emitError() << "a " << type << " does not take " << length
                       << " bytes";
  return success();
}

Attribute FileElementsAttr::parse(AsmParser &parser, Type type) {
  StringAttr path;
  uint64_t offset, length;
  std::string hash;
  llvm::SMLoc loc = parser.getCurrentLocation();
  bool hasHash = false, varint = false;
  if (parser.parseLess() || parser.parseAttribute(path) ||
      parser.parseLSquare() || parser.parseInteger(offset) ||
      parser.parseComma() || parser.parseInteger(length) ||
      parser.parseRSquare())
    return {};
  while (succeeded(parser.parseOptionalComma())) {
    if (succeeded(parser.parseOptionalKeyword("varint"))) {
      varint = true;
      continue;
    }
    hasHash = true;
    if (parser.parseKeyword("hash") || parser.parseString(&hash))
      return {};
  }
  if (parser.parseGreater())
    return {};
  auto shaped = dyn_cast_if_present<ShapedType>(type);
  if (!shaped || !shaped.hasStaticShape()) {
    parser.emitError(loc, "an onnx.file needs a tensor type of static shape");
    return {};
  }
  auto emitError = [&] { return parser.emitError(loc); };
  auto attr = FileElementsAttr::getChecked(
      emitError, parser.getContext(), shaped, path, offset, length, varint);
  if (attr && hasHash) {
    std::string found =
        llvm::utohexstr(hashBytes(attr.getBytes(), /*mapped=*/true),
                        /*LowerCase=*/true, /*Width=*/16);
    if (found != hash) {
      parser.emitError(loc) << "'" << path.getValue()
                            << "' has changed since this was written: the hash "
                               "of these bytes is "
                            << found << ", not " << hash;
      return {};
    }
  }
  return attr;
}

void FileElementsAttr::print(AsmPrinter &printer) const {
  printer << "<" << getPath() << "[" << getOffset() << ", " << getLength()
          << "]";
  if (getVarint())
    printer << ", varint";
  printer << ", hash \""
          << llvm::utohexstr(hashBytes(getBytes(), /*mapped=*/true),
                             /*LowerCase=*/true, /*Width=*/16)
          << "\">";
}

//===----------------------------------------------------------------------===//
// SparseTensorDataAttr
//===----------------------------------------------------------------------===//

Attribute SparseTensorDataAttr::parse(AsmParser &parser, Type) {
  TensorAttr values, indices;
  SmallVector<int64_t> dims;
  auto parseDim = [&] { return parser.parseInteger(dims.emplace_back()); };
  if (parser.parseLess() || parser.parseAttribute(values) ||
      parser.parseComma() || parser.parseAttribute(indices) ||
      parser.parseComma() ||
      parser.parseCommaSeparatedList(AsmParser::Delimiter::Square, parseDim) ||
      parser.parseGreater())
    return {};
  return SparseTensorDataAttr::get(parser.getContext(), values, indices, dims);
}

void SparseTensorDataAttr::print(AsmPrinter &printer) const {
  printer << "<" << getValues() << ", " << getIndices() << ", [";
  llvm::interleaveComma(getDims(), printer);
  printer << "]>";
}
