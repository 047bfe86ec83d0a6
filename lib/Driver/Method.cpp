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
    {"recipe", Method::Rounding::Recipe},
    {"gptq", Method::Rounding::Gptq},
    {"obq", Method::Rounding::Obq},
    {"round", Method::Rounding::Nearest},
};

/// With fewer bits AWQ's search, which rounds to nearest, tells little of what
/// the recipe makes of a weight (docs/Accuracy.md).
static constexpr unsigned kLeastBitsOfAwq = 4;

/// What a method does that is named by its first step alone.
static Method::Rounding getOwnRounding(Method::Preparation preparation,
                                       bool keepsOutliers) {
  if (keepsOutliers)
    return Method::Rounding::Gptq;
  // AWQ searches scales for the inputs.
  return preparation == Method::Preparation::Awq ? Method::Rounding::Calibrated
                                                 : Method::Rounding::Nearest;
}

/// Each method by its name: auto, or a preparation, then spqr, then a rounding,
/// with a + between them; each of them may be missing.
static std::vector<std::pair<std::string, Method>> listMethods() {
  using Preparation = Method::Preparation;
  std::vector<std::pair<std::string, Method>> methods = {
      {"auto",
       {Preparation::Awq, Method::Rounding::Recipe, /*keepsOutliers=*/false,
        kLeastBitsOfAwq}}};
  for (const auto &[preparationName, preparation] : preparations)
    for (bool keepsOutliers : {false, true}) {
      // Activations in 8 bits are multiplied by weights that are all codes.
      if (keepsOutliers && (preparation == Preparation::SmoothQuant ||
                            preparation == Preparation::LlmInt8))
        continue;
      std::string prefix = preparationName;
      if (keepsOutliers)
        prefix += prefix.empty() ? "spqr" : "+spqr";
      if (!prefix.empty()) {
        auto rounding = getOwnRounding(preparation, keepsOutliers);
        methods.push_back({prefix, {preparation, rounding, keepsOutliers}});
        prefix += "+";
      }
      for (const auto &[roundingName, rounding] : roundings) {
        bool goesAlong = rounding == Method::Rounding::Nearest ? prefix.empty()
                         : rounding == Method::Rounding::Obq   ? !keepsOutliers
                                                               : true;
        if (goesAlong)
          methods.push_back(
              {prefix + roundingName, {preparation, rounding, keepsOutliers}});
      }
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
  Method found;
  for (auto &[name, method] : listMethods())
    if (name == wanted)
      found = method;
  // Activations have shared their ranges out before.
  if (wanted == "auto" && command.activations != "float")
    found.preparation = Method::Preparation::None;
  return found;
}
