//===- Generate.cpp - nibble generate -------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Compile.h"
#include "LoadedModel.h"
#include "Session.h"
#include "TokenizerProcess.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Support/Random.h"
#include "nibble/Tools/ModelFile.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

#include <chrono>
#include <cmath>

using namespace mlir;
using namespace nibble;
using llvm::Error;
using llvm::Expected;

static Error makeError(const Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

//===----------------------------------------------------------------------===//
// The decoder
//===----------------------------------------------------------------------===//

namespace {
/// A causal language model and the tokens that it has read. Its inputs are
/// known by the names that exporters give: one of integers for the tokens,
/// `attention_mask`, `position_ids`, and caches.
class Decoder {
public:
  /// `capacity`: of its caches, in tokens.
  static Expected<Decoder> create(const LoadedModel &model, int64_t capacity);

  /// Reads more tokens. Returns the logits behind the last one.
  Expected<ArrayRef<float>> read(ArrayRef<int64_t> tokens);
  bool hasCache() const { return hasBuffers() || !carried.empty(); }

private:
  enum class Role { Tokens, Mask, Positions, Buffer, Past, Length };

  explicit Decoder(const LoadedModel &model) : model(model) {}
  Error assignRoles(int64_t capacity);
  Error findLogits();
  bool hasBuffers() const { return llvm::is_contained(roles, Role::Buffer); }
  void setIntegers(size_t input, ArrayRef<int64_t> shape,
                   llvm::function_ref<int64_t(int64_t)> getValue);

  const LoadedModel &model;
  std::vector<Role> roles;
  std::vector<NpyArray> inputs;
  /// Pairs of an output and the input that it becomes in the next call.
  std::vector<std::pair<size_t, size_t>> carried;
  size_t logits = 0;
  /// Of a model without a cache: all tokens.
  std::vector<int64_t> history;
  int64_t past = 0;
  NpyArray last;
};
} // namespace

static bool isInteger(const nibble_value &value, unsigned rank) {
  return value.dtype.code == 0 && value.ndim == static_cast<int32_t>(rank) &&
         (value.dtype.bits == 64 || value.dtype.bits == 32);
}

/// An empty cache of `length` entries of zeros.
static NpyArray makeCache(const nibble_value &value, int64_t length) {
  NpyArray array;
  array.name = value.name;
  array.kind = getNumpyKind(value.dtype.code, value.dtype.bits);
  size_t bytes = (value.dtype.bits + 7) / 8;
  for (int32_t axis = 0; axis < value.ndim; ++axis) {
    int64_t size = value.shape[axis];
    // The first dimension is the batch, the other one grows.
    if (size < 0)
      size = axis == 0 ? 1 : length;
    array.shape.push_back(size);
    bytes *= size;
  }
  array.bytes.resize(bytes);
  return array;
}

Error Decoder::assignRoles(int64_t capacity) {
  std::vector<size_t> presents;
  for (auto [index, output] : llvm::enumerate(model.getOutputs()))
    if (StringRef(output.name).starts_with("present"))
      presents.push_back(index);
  bool updates = llvm::any_of(
      model.getInputs(), [](const nibble_value &v) { return v.updated != 0; });
  size_t tokens = 0;
  for (auto [index, input] : llvm::enumerate(model.getInputs())) {
    StringRef name(input.name);
    Role role = Role::Tokens;
    NpyArray array;
    if (input.updated) {
      role = Role::Buffer;
      array = makeCache(input, capacity);
    } else if (name.starts_with("past") && input.dtype.code != 0) {
      role = Role::Past;
      if (carried.size() == presents.size())
        return makeError("input '" + name +
                         "' is a cache, and no output is "
                         "left that could be its next state");
      carried.emplace_back(presents[carried.size()], index);
      array = makeCache(input, 0);
    } else if (updates && index + 1 == model.getInputs().size()) {
      role = Role::Length;
    } else if (name == "attention_mask" && isInteger(input, 2)) {
      role = Role::Mask;
    } else if (name == "position_ids" && isInteger(input, 2)) {
      role = Role::Positions;
    } else if (isInteger(input, 2)) {
      ++tokens;
    } else {
      return makeError(
          "input '" + name +
          "' is none that a causal language "
          "model has: tokens, attention_mask, position_ids, past…");
    }
    array.name = input.name;
    array.kind = getNumpyKind(input.dtype.code, input.dtype.bits);
    roles.push_back(role);
    inputs.push_back(std::move(array));
  }
  if (tokens != 1)
    return makeError("the model has " + Twine(tokens) +
                     " inputs of integers [batch, sequence] that could be its "
                     "tokens; one is needed");
  return Error::success();
}

Error Decoder::findLogits() {
  for (auto [index, output] : llvm::enumerate(model.getOutputs()))
    if (output.ndim == 3 && output.dtype.code == 2 && output.dtype.bits == 32) {
      logits = index;
      return Error::success();
    }
  return makeError("the model has no output of float32 [batch, sequence, "
                   "vocabulary] that could be its logits");
}

Expected<Decoder> Decoder::create(const LoadedModel &model, int64_t capacity) {
  Decoder decoder(model);
  if (Error error = decoder.assignRoles(capacity))
    return error;
  if (Error error = decoder.findLogits())
    return error;
  return decoder;
}

/// Gives an input the integers of `getValue` by their place.
void Decoder::setIntegers(size_t input, ArrayRef<int64_t> shape,
                          llvm::function_ref<int64_t(int64_t)> getValue) {
  NpyArray &array = inputs[input];
  array.shape = shape.vec();
  bool wide = array.kind == "i8";
  array.bytes.resize(shape.back() * (wide ? 8 : 4));
  for (int64_t i = 0; i < shape.back(); ++i) {
    int64_t value = getValue(i);
    auto narrow = static_cast<int32_t>(value);
    if (wide)
      std::memcpy(&array.bytes[i * 8], &value, 8);
    else
      std::memcpy(&array.bytes[i * 4], &narrow, 4);
  }
}

Expected<ArrayRef<float>> Decoder::read(ArrayRef<int64_t> tokens) {
  if (!hasCache()) {
    llvm::append_range(history, tokens);
    tokens = history;
  }
  auto count = static_cast<int64_t>(tokens.size());
  for (auto [index, role] : llvm::enumerate(roles)) {
    if (role == Role::Tokens) {
      setIntegers(index, {1, count}, [&](int64_t i) { return tokens[i]; });
    } else if (role == Role::Mask) {
      setIntegers(index, {1, past + count}, [](int64_t) { return 1; });
    } else if (role == Role::Positions) {
      setIntegers(index, {1, count}, [&](int64_t i) { return past + i; });
    } else if (role == Role::Length) {
      setIntegers(index, {1}, [&](int64_t) { return past; });
    }
  }
  auto results = model.run(inputs);
  if (!results)
    return results.takeError();
  for (auto [output, input] : carried) {
    std::string name = std::move(inputs[input].name);
    inputs[input] = std::move((*results)[output]);
    inputs[input].name = std::move(name);
  }
  if (hasCache())
    past += count;
  last = std::move((*results)[logits]);
  if (last.shape[1] == 0 || last.shape[2] == 0)
    return makeError("the model gave no logits");
  const auto *numbers = reinterpret_cast<const float *>(last.bytes.data());
  return ArrayRef(numbers + (last.shape[1] - 1) * last.shape[2], last.shape[2]);
}

//===----------------------------------------------------------------------===//
// The next token
//===----------------------------------------------------------------------===//

/// The likeliest token, or with a temperature one by its probability.
static Expected<int64_t> choose(ArrayRef<float> logits, double temperature,
                                Random &random) {
  const float *best = llvm::max_element(logits);
  if (llvm::any_of(logits, [](float x) { return std::isnan(x); }))
    return makeError("the model's logits are not numbers (NaN)");
  if (temperature == 0)
    return best - logits.begin();
  std::vector<double> sums;
  double sum = 0;
  for (float logit : logits)
    sums.push_back(sum += std::exp((logit - *best) / temperature));
  auto chosen = llvm::upper_bound(sums, random.draw() * sum);
  return std::min<int64_t>(chosen - sums.begin(), logits.size() - 1);
}

//===----------------------------------------------------------------------===//
// The verb
//===----------------------------------------------------------------------===//

namespace {
struct Generation {
  std::vector<int64_t> tokens;
  double promptSeconds = 0, seconds = 0;
};
} // namespace

static Expected<Generation> generateTokens(Decoder &decoder,
                                           ArrayRef<int64_t> prompt,
                                           const GenerateCommand &command,
                                           TokenizerProcess *tokenizer) {
  using Clock = std::chrono::steady_clock;
  auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  Generation result;
  Random random(command.seed);
  Clock::time_point start = Clock::now();
  auto logits = decoder.read(prompt);
  result.promptSeconds = since(start);
  start = Clock::now();
  while (logits) {
    auto token = choose(*logits, command.temperature, random);
    if (!token)
      return token.takeError();
    if (tokenizer && tokenizer->isSpecial(*token))
      break;
    result.tokens.push_back(*token);
    bool isRead = !tokenizer || tokenizer->print(*token);
    if (!isRead || result.tokens.size() == command.tokens)
      break;
    logits = decoder.read(*token);
  }
  if (!logits)
    return logits.takeError();
  result.seconds = since(start);
  return result;
}

static void printTokens(ArrayRef<int64_t> tokens) {
  llvm::interleaveComma(tokens, llvm::outs());
  llvm::outs() << "\n";
}

static void report(const Generation &result, size_t prompt, bool cached) {
  // The first token comes from the prompt.
  size_t steps = result.tokens.empty() ? 0 : result.tokens.size() - 1;
  llvm::errs() << llvm::formatv(
      "prompt: {0} tokens in {1:f2} s, {2:f1} a second; then {3} tokens in "
      "{4:f2} s, {5:f1} a second{6}\n",
      prompt, result.promptSeconds,
      static_cast<double>(prompt) / result.promptSeconds, steps, result.seconds,
      static_cast<double>(steps) / result.seconds,
      cached ? "" : " (the model has no cache: each reads the whole text)");
}

static void printJson(const Generation &result, ArrayRef<int64_t> prompt,
                      bool cached) {
  llvm::json::OStream json(llvm::outs(), 2);
  json.object([&] {
    json.attributeArray("prompt", [&] {
      for (int64_t token : prompt)
        json.value(token);
    });
    json.attributeArray("generated", [&] {
      for (int64_t token : result.tokens)
        json.value(token);
    });
    json.attribute("cache", cached);
    json.attribute("prompt_seconds", result.promptSeconds);
    json.attribute("seconds", result.seconds);
  });
  llvm::outs() << "\n";
}

int nibble::generate(const GenerateCommand &command) {
  if (command.threads)
    ::setenv("OMP_NUM_THREADS", std::to_string(command.threads).c_str(), 1);
  std::unique_ptr<TokenizerProcess> tokenizer;
  std::vector<int64_t> prompt = command.promptIds;
  if (!command.tokenizer.empty()) {
    auto started = TokenizerProcess::start(command.tokenizer, command.prompt,
                                           /*silent=*/command.json);
    if (!started)
      return fail(llvm::toString(started.takeError()));
    tokenizer = std::move(*started);
    prompt = tokenizer->getPrompt();
  }
  if (prompt.empty())
    return fail("the prompt has no tokens; a model needs at least one");

  Session session;
  addPipelineDialects(session.getContext());
  OwningOpRef<ModuleOp> module =
      loadModel(command.input, &session.getContext());
  if (!module)
    return ExitFailure;
  CacheOptions cache;
  cache.target = command.target;
  cache.disabled = command.noCache;
  cache.updateCaches = true;
  auto model = loadCompiled(command.input, *module, cache);
  if (!model)
    return ExitFailure;
  auto decoder = Decoder::create(*model, prompt.size() + command.tokens);
  if (!decoder)
    return fail(command.input + ": " + llvm::toString(decoder.takeError()));
  auto result = generateTokens(*decoder, prompt, command, tokenizer.get());
  if (!result)
    return fail(command.input + ": " + llvm::toString(result.takeError()));
  if (tokenizer)
    tokenizer->finish();
  if (command.json)
    printJson(*result, prompt, decoder->hasCache());
  else if (!tokenizer)
    printTokens(result->tokens);
  if (!command.quiet && !command.json)
    report(*result, prompt.size(), decoder->hasCache());
  return ExitSuccess;
}
