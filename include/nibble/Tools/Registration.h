//===- Registration.h - Everything a tool offers ----------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TOOLS_REGISTRATION_H
#define NIBBLE_TOOLS_REGISTRATION_H

namespace mlir {
class DialectRegistry;
}

namespace nibble {

/// Adds Nibble's dialects, without upstream's.
void registerNibbleDialects(mlir::DialectRegistry &registry);

/// Adds what the reference pipeline needs to compile and run a model:
/// upstream's dialects that it passes through, without the rest of upstream.
void registerReferenceDialects(mlir::DialectRegistry &registry);

/// Registers Nibble's passes and pipelines, without upstream's.
void registerNibblePasses();

/// Adds Nibble's and all of upstream's dialects, extensions and translations.
void registerAllDialects(mlir::DialectRegistry &registry);

/// Registers Nibble's and all of upstream's passes.
void registerAllPasses();

} // namespace nibble

#endif // NIBBLE_TOOLS_REGISTRATION_H
