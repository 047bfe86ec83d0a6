//===- SanitizerOptions.cpp - Options of every sanitized program ----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

/// LLVM's allocators poison what they have not handed out, and that code is
/// inlined into ours; libMLIR is not instrumented and never unpoisons what it
/// takes from the same memory.
extern "C" const char *__asan_default_options() {
  return "allow_user_poisoning=0";
}
