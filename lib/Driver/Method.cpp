//===- Method.cpp - How quantize chooses codes ----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Method.h"

using namespace nibble;

static const std::pair<const char *, Method::Preparation> preparations[] = {
    {"", Method::Preparation::None},
    {"smoothquant", Method::Preparation::SmoothQuant},
    {"awq", Method::Preparation::Awq},
    {"llm-int8", Method::Preparation::LlmInt8},
};
static const std::pair<const char *, Method::Rounding> roundings[] = {
    {"auto", Method::Rounding::Recipe},
    {"gptq", Method::Rounding::Gptq},
    {"round", Method::Rounding::Nearest},
};

/// Each method by its name: a rounding, a preparation, or both with a +
/// between.
static std::vector<std::pair<std::string, Method>> listMethods() {
  std::vector<std::pair<std::string, Method>> methods;
  for (const auto &[preparationName, preparation] : preparations) {
    std::string prefix = preparationName;
    if (!prefix.empty()) {
      // What AWQ's own rounding does: it searches scales for the inputs.
      auto rounding = preparation == Method::Preparation::Awq
                          ? Method::Rounding::Calibrated
                          : Method::Rounding::Nearest;
      methods.push_back({prefix, {preparation, rounding}});
      prefix += "+";
    }
    for (const auto &[roundingName, rounding] : roundings)
      if (prefix.empty() || rounding != Method::Rounding::Nearest)
        methods.push_back({prefix + roundingName, {preparation, rounding}});
  }
  return methods;
}

std::vector<std::string> nibble::getMethodNames() {
  std::vector<std::pair<std::string, Method>> methods = listMethods();
  std::vector<std::string> names;
  names.reserve(methods.size());
  for (auto &[name, method] : methods)
    names.push_back(name);
  return names;
}

std::string nibble::getMethodName(const QuantizeCommand &command) {
  if (!command.method.empty())
    return command.method;
  if (command.calibration.empty())
    return "round";
  return command.activations == "float" ? "auto" : "smoothquant";
}

Method nibble::getMethod(const QuantizeCommand &command) {
  std::string wanted = getMethodName(command);
  for (auto &[name, method] : listMethods())
    if (name == wanted)
      return method;
  return {};
}
