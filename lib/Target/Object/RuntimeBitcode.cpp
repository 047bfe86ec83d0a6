//===- RuntimeBitcode.cpp - The runtime that compiled models carry --------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/EmittedModel.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/TargetParser/Triple.h"

static const unsigned char x86[] = {
#include "Runtime-x86_64.inc"
};
static const unsigned char arm[] = {
#include "Runtime-aarch64.inc"
};

llvm::StringRef nibble::getRuntimeBitcode(llvm::StringRef triple) {
  auto toText = [](llvm::ArrayRef<unsigned char> bytes) {
    return llvm::toStringRef(bytes);
  };
  switch (llvm::Triple(triple).getArch()) {
  case llvm::Triple::x86_64:
    return toText(x86);
  case llvm::Triple::aarch64:
    return toText(arm);
  default:
    return {};
  }
}
