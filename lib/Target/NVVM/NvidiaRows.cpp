//===- NvidiaRows.cpp - The NVIDIA GPUs that code is emitted for ----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/NVVM/NvidiaRow.h"

using namespace nibble;

static constexpr NvidiaRow rows[] = {
#define NIBBLE_NVIDIA(name, chip, features, shared, overlap, warpgroups)       \
  {name, chip, features, shared, overlap, warpgroups},
#include "NvidiaRows.inl"
};

llvm::ArrayRef<NvidiaRow> nibble::getNvidiaRows() { return rows; }

const NvidiaRow *nibble::findNvidiaRow(llvm::StringRef name) {
  for (const NvidiaRow &row : rows)
    if (row.name == name)
      return &row;
  return nullptr;
}

std::string nibble::listNvidiaRows() {
  std::string names;
  for (const NvidiaRow &row : rows)
    names += (names.empty() ? "" : ", ") + row.name.str();
  return names;
}
