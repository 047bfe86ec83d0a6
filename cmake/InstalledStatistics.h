//===- InstalledStatistics.h - Statistics as LLVM was built -----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Included first in builds with assertions against an LLVM without. There
// llvm/ADT/Statistic.h would choose another class than the library's, of
// another size, so that the statistics of passes would be read uninitialized.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CMAKE_INSTALLEDSTATISTICS_H
#define NIBBLE_CMAKE_INSTALLEDSTATISTICS_H

#pragma push_macro("NDEBUG")
#undef NDEBUG
#define NDEBUG
#include "llvm/ADT/Statistic.h"
#pragma pop_macro("NDEBUG")
// So that what is included from here on has its assertions.
#include <cassert>

#endif // NIBBLE_CMAKE_INSTALLEDSTATISTICS_H
