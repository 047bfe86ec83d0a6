//===- nibble-opt.cpp - Nibble's passes, one at a time --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Tools/OptMain.h"

int main(int argc, char **argv) { return nibble::optMain(argc, argv); }
