//===- TokenizerProcess.h - Words and tokens --------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Tokenizers are what Hugging Face's package `tokenizers` reads
// (tokenizer.json). It runs in a process of its own, which prints the text.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_TOKENIZERPROCESS_H
#define NIBBLE_LIB_DRIVER_TOKENIZERPROCESS_H

#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

namespace nibble {

class TokenizerProcess {
public:
  /// Reads the tokenizer at `path` and begins to print `prompt`, unless it is
  /// to be silent.
  static llvm::Expected<std::unique_ptr<TokenizerProcess>>
  start(llvm::StringRef path, llvm::StringRef prompt, bool silent);
  ~TokenizerProcess();

  /// The tokens of the prompt.
  const std::vector<int64_t> &getPrompt() const { return prompt; }
  /// True for a token that stands for no text, as the end of one does.
  bool isSpecial(int64_t token) const { return special.contains(token); }
  /// Prints the text of the next token, as far as it is whole. False where
  /// nobody reads it any more.
  bool print(int64_t token);
  /// Waits until all is printed.
  void finish();

private:
  TokenizerProcess() = default;

  int process = -1;
  std::FILE *tokens = nullptr;
  std::vector<int64_t> prompt;
  llvm::DenseSet<int64_t> special;
};

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_TOKENIZERPROCESS_H
