//===- Method.cpp - How quantize chooses codes ----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Method.h"

using namespace nibble;

static const std::pair<const char *, Method::Rescaling> rescalings[] = {
    {"", Method::Rescaling::None},
    {"smoothquant", Method::Rescaling::SmoothQuant},
    {"awq", Method::Rescaling::Awq},
};
static const std::pair<const char *, Method::Rounding> roundings[] = {
    {"auto", Method::Rounding::Recipe},
    {"gptq", Method::Rounding::Gptq},
    {"round", Method::Rounding::Nearest},
};

/// Each method by its name: a rounding, a rescaling, or both with a + between.
static std::vector<std::pair<std::string, Method>> listMethods() {
  std::vector<std::pair<std::string, Method>> methods;
  for (const auto &[rescalingName, rescaling] : rescalings) {
    std::string prefix = rescalingName;
    if (!prefix.empty()) {
      // What AWQ's own rounding does: it searches scales for the inputs.
      auto rounding = rescaling == Method::Rescaling::Awq
                          ? Method::Rounding::Calibrated
                          : Method::Rounding::Nearest;
      methods.push_back({prefix, {rescaling, rounding}});
      prefix += "+";
    }
    for (const auto &[roundingName, rounding] : roundings)
      if (prefix.empty() || rounding != Method::Rounding::Nearest)
        methods.push_back({prefix + roundingName, {rescaling, rounding}});
  }
  return methods;
}

std::vector<std::string> nibble::getMethodNames() {
  std::vector<std::string> names;
  for (auto &[name, method] : listMethods())
    names.push_back(name);
  return names;
}

std::string nibble::getMethodName(const QuantizeCommand &command) {
  if (!command.method.empty())
    return command.method;
  if (command.activations != "float")
    return "smoothquant";
  return command.calibration.empty() ? "round" : "auto";
}

Method nibble::getMethod(const QuantizeCommand &command) {
  std::string wanted = getMethodName(command);
  for (auto &[name, method] : listMethods())
    if (name == wanted)
      return method;
  return {};
}
