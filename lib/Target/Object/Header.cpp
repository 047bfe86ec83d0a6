//===- Header.cpp - The C header of a compiled model ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Target/EmittedModel.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace nibble;

static const unsigned char typesText[] = {
#include "Types.inc"
};

/// The C type of an element in its place.
static StringRef getCType(Type element) {
  DataType type = getDataType(element);
  if (element.isF32())
    return "float";
  if (element.isF64())
    return "double";
  bool isSigned = type.code == 0;
  switch (type.bits) {
  case 16:
    return isSigned ? "int16_t" : "uint16_t";
  case 32:
    return isSigned ? "int32_t" : "uint32_t";
  case 64:
    return isSigned ? "int64_t" : "uint64_t";
  default:
    return isSigned ? "int8_t" : "uint8_t";
  }
}

namespace {
/// Names of values as names of C parameters, each one once.
class ParameterNames {
public:
  std::string get(StringRef name) {
    std::string result;
    for (char c : name)
      result += llvm::isAlnum(c) ? c : '_';
    if (result.empty() || llvm::isDigit(result.front()))
      result = "x" + result;
    // No word of C or C++ ends with an underscore.
    while (!names.insert(result).second || isTaken(result))
      result += "_";
    return result;
  }

private:
  static bool isTaken(StringRef name) {
    static const llvm::StringSet<> words = {
        "alignas",  "alignof",  "and",      "asm",       "auto",     "bool",
        "break",    "case",     "catch",    "char",      "class",    "const",
        "continue", "default",  "delete",   "do",        "double",   "else",
        "enum",     "explicit", "export",   "extern",    "false",    "float",
        "for",      "friend",   "goto",     "if",        "inline",   "int",
        "long",     "model",    "mutable",  "namespace", "new",      "not",
        "operator", "or",       "private",  "protected", "public",   "register",
        "restrict", "return",   "short",    "signed",    "sizeof",   "static",
        "struct",   "switch",   "template", "this",      "throw",    "true",
        "try",      "typedef",  "typename", "union",     "unsigned", "using",
        "virtual",  "void",     "volatile", "while",     "xor",      "status",
        "inputs",   "outputs",  "NULL",     "linux",     "unix"};
    return words.contains(name);
  }

  llvm::StringSet<> names;
};

struct Parameter {
  ModelInterface::Value value;
  std::string name;
};
} // namespace

static std::vector<Parameter>
nameParameters(const std::vector<ModelInterface::Value> &values,
               ParameterNames &names) {
  std::vector<Parameter> parameters;
  for (const ModelInterface::Value &value : values) {
    std::string name = names.get(value.name);
    // The array of its sizes is called after it.
    (void)names.get(name + "_shape");
    parameters.push_back({value, name});
  }
  return parameters;
}

/// "float32[batch, 4]" of a value, for a comment.
static std::string describe(const ModelInterface::Value &value) {
  std::string text;
  llvm::raw_string_ostream os(text);
  os << value.type.getElementType() << "[";
  llvm::interleaveComma(
      onnx::getDimensions(value.type), os, [&](onnx::Dimension dimension) {
        if (dimension.isStatic())
          os << dimension.size;
        else
          os << (dimension.symbol ? dimension.symbol.getValue() : "?");
      });
  os << "]";
  // A name may hold anything.
  size_t end;
  while ((end = text.find("*/")) != std::string::npos)
    text.replace(end, 2, "* /");
  return text;
}

static void writeDeclarations(StringRef name, llvm::raw_ostream &os) {
  static const char text[] = R"(
/* A loaded model. It never changes, so that any number of threads may run it at
 * once. */
typedef struct @_model @_model;

/* Loads the model. `weights_path` is the file of its weights; NULL means the one
 * that `nibble compile` wrote, beside the library. Files are mapped: processes
 * that load the same model share the memory of its weights. */
nibble_status @_create(const char *weights_path, @_model **result);
void @_destroy(@_model *model);

/* What the last call in this thread that did not return NIBBLE_OK has to say. */
const char *@_last_error(void);

/* The inputs and outputs, in the order in which the functions below take them;
 * `count` may be NULL. */
const nibble_value *@_inputs(size_t *count);
const nibble_value *@_outputs(size_t *count);
/* The instruction set that the code of this model was chosen for. */
const char *@_target(const @_model *model);

/* Fills in rank, type and shape of the outputs for inputs of these types and
 * shapes; each `outputs[i].shape` has to have room. A size that depends on the
 * values of the inputs is -1. */
nibble_status @_output_shapes(const nibble_tensor *inputs, size_t num_inputs,
                              nibble_tensor *outputs, size_t num_outputs);

/* Runs the model. An output whose `data` is NULL is allocated, and its shape too
 * where that is NULL; @_release frees both. Other outputs are written to
 * their place, which must have the type and shape of the result. */
nibble_status @_run(const @_model *model, const nibble_tensor *inputs,
                    size_t num_inputs, nibble_tensor *outputs,
                    size_t num_outputs);
/* The same; ends with NIBBLE_INTERRUPTED soon after `*stop` is not 0. */
nibble_status @_run_until(const @_model *model, const nibble_tensor *inputs,
                          size_t num_inputs, nibble_tensor *outputs,
                          size_t num_outputs, const volatile int *stop);
/* Frees outputs that the library has allocated, data and shape. */
void @_release(nibble_tensor *outputs, size_t num_outputs);
/* Frees the data of one output that the library has allocated. */
void @_free(void *data);
)";
  for (char c : StringRef(text)) {
    if (c == '@')
      os << name;
    else
      os << c;
  }
}

/// One tensor of the array in the typed entry point.
static void writeTensor(const Parameter &parameter, StringRef array,
                        size_t index, bool isInput, llvm::raw_ostream &os) {
  DataType type = getDataType(parameter.value.type.getElementType());
  int64_t rank = parameter.value.type.getRank();
  auto field = [&](StringRef name, const Twine &value) {
    os << "  " << array << "[" << index << "]." << name << " = " << value
       << ";\n";
  };
  if (isInput)
    field("data", "(void *)" + parameter.name);
  field("device.type", "1");
  field("ndim", Twine(rank));
  field("dtype.code", Twine(unsigned(type.code)));
  field("dtype.bits", Twine(unsigned(type.bits)));
  field("dtype.lanes", "1");
  if (rank > 0)
    field("shape", "(int64_t *)" + parameter.name + "_shape");
}

/// The parameters "const float *x, const int64_t x_shape[2]".
static void writeParameter(const Parameter &parameter, bool isInput,
                           llvm::raw_ostream &os) {
  int64_t rank = parameter.value.type.getRank();
  StringRef constant = isInput ? "const " : "";
  os << ",\n    " << (parameter.value.updated ? "" : constant)
     << getCType(parameter.value.type.getElementType())
     << (isInput ? " *" : " **") << parameter.name;
  if (rank > 0)
    os << ", " << constant << "int64_t " << parameter.name << "_shape[" << rank
       << "]";
}

static void writeCall(const ModelInterface &interface, StringRef name,
                      llvm::raw_ostream &os) {
  ParameterNames names;
  std::vector<Parameter> inputs = nameParameters(interface.inputs, names);
  std::vector<Parameter> outputs = nameParameters(interface.outputs, names);
  os << "\n/* Runs the model on typed arrays, row-major:\n";
  for (const Parameter &input : inputs)
    os << " *   in   " << input.name << ": " << describe(input.value)
       << (input.value.updated ? ", updated in place" : "") << "\n";
  for (const Parameter &output : outputs)
    os << " *   out  " << output.name << ": " << describe(output.value) << "\n";
  os << " * Outputs are allocated, their shapes filled in; " << name
     << "_free frees each.\n */\n";
  os << "static inline nibble_status " << name << "_call(\n    const " << name
     << "_model *model";
  for (const Parameter &input : inputs)
    writeParameter(input, /*isInput=*/true, os);
  for (const Parameter &output : outputs)
    writeParameter(output, /*isInput=*/false, os);
  os << ") {\n";
  // C has no arrays of no elements.
  os << "  nibble_tensor inputs[" << std::max<size_t>(1, inputs.size())
     << "];\n  nibble_tensor outputs[" << std::max<size_t>(1, outputs.size())
     << "];\n  nibble_status status;\n"
     << "  memset(inputs, 0, sizeof(inputs));\n"
     << "  memset(outputs, 0, sizeof(outputs));\n";
  for (auto [index, input] : llvm::enumerate(inputs))
    writeTensor(input, "inputs", index, /*isInput=*/true, os);
  for (auto [index, output] : llvm::enumerate(outputs))
    writeTensor(output, "outputs", index, /*isInput=*/false, os);
  os << "  status = " << name << "_run(model, inputs, " << inputs.size()
     << ", outputs, " << outputs.size() << ");\n";
  for (auto [index, output] : llvm::enumerate(outputs))
    os << "  *" << output.name << " = ("
       << getCType(output.value.type.getElementType()) << " *)outputs[" << index
       << "].data;\n";
  os << "  return status;\n}\n";
}

void nibble::writeModelHeader(const ModelInterface &interface, StringRef name,
                              llvm::raw_ostream &os) {
  std::string guard = "NIBBLE_MODEL_" + name.upper() + "_H";
  os << "/* The C interface of the model '" << name
     << "', written by `nibble compile`. */\n\n#ifndef " << guard
     << "\n#define " << guard << "\n\n#include <string.h>\n\n"
     << llvm::toStringRef(ArrayRef(typesText))
     << "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n";
  writeDeclarations(name, os);
  writeCall(interface, name, os);
  os << "\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* " << guard << " */\n";
}
