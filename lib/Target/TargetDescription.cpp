//===- TargetDescription.cpp - What code is emitted for -------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/TargetDescription.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/Twine.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/Triple.h"

using namespace nibble;
using llvm::StringRef;

static constexpr TargetRow rows[] = {
#define NIBBLE_TARGET(name, triple, cpu, features, bits, dot, registers)       \
  {name, triple, cpu, features, bits, DotStep::dot, registers},
#include "TargetRows.inl"
};

llvm::ArrayRef<TargetRow> nibble::getTargetRows() { return rows; }

static llvm::Triple::ArchType getArchitecture(const TargetRow &row) {
  return llvm::Triple(row.triple).getArch();
}

static llvm::Triple::ArchType getHostArchitecture() {
  return llvm::Triple(llvm::sys::getProcessTriple()).getArch();
}

/// True where `has` holds for each feature that the code of `row` may use.
static bool allFeatures(const TargetRow &row,
                        llvm::function_ref<bool(StringRef)> has) {
  llvm::SmallVector<StringRef> features;
  row.features.split(features, ',', /*MaxSplit=*/-1, /*KeepEmpty=*/false);
  return llvm::all_of(features, [&](StringRef feature) {
    return !feature.consume_front("+") || has(feature);
  });
}

bool nibble::canRunHere(const TargetRow &row) {
  if (getArchitecture(row) != getHostArchitecture())
    return false;
  static const llvm::StringMap<bool> host = llvm::sys::getHostCPUFeatures();
  return allFeatures(row, [](StringRef name) { return host.lookup(name); });
}

bool nibble::canRunOn(const TargetRow &row, const TargetRow &machine) {
  if (getArchitecture(row) != getArchitecture(machine))
    return false;
  llvm::SmallVector<StringRef> has;
  machine.features.split(has, ',');
  return allFeatures(row, [&](StringRef name) {
    return llvm::is_contained(has, ("+" + llvm::Twine(name)).str());
  });
}

const TargetRow *nibble::findTarget(StringRef name) {
  if (name == "native") {
    auto best = llvm::find_if(llvm::reverse(rows), canRunHere);
    return best == std::rend(rows) ? nullptr : &*best;
  }
  if (name == "generic") {
    auto baseline = llvm::find_if(rows, [](const TargetRow &row) {
      return getArchitecture(row) == getHostArchitecture();
    });
    return baseline == std::end(rows) ? nullptr : baseline;
  }
  auto row =
      llvm::find_if(rows, [&](const TargetRow &r) { return r.name == name; });
  return row == std::end(rows) ? nullptr : row;
}

std::string nibble::listTargetNames() {
  std::string names = "native, generic";
  for (const TargetRow &row : rows)
    names += ", " + row.name.str();
  return names;
}
