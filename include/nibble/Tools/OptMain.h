//===- OptMain.h - nibble-opt -----------------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TOOLS_OPTMAIN_H
#define NIBBLE_TOOLS_OPTMAIN_H

namespace nibble {

/// `mlir-opt` with Nibble's dialects and passes, that also takes and writes
/// ONNX files: `nibble-opt m.onnx --nibble-assign-schemes --nibble-round -o
/// q.onnx`. Returns the exit code.
int optMain(int argc, char **argv);

} // namespace nibble

#endif // NIBBLE_TOOLS_OPTMAIN_H
