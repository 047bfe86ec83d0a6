//===- Interrupt.h - What is done when a signal ends a tool -----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_SUPPORT_INTERRUPT_H
#define NIBBLE_SUPPORT_INTERRUPT_H

namespace nibble {

/// While it lives, a signal that ends the program (SIGINT, SIGTERM …) first
/// runs `action`, after LLVM has removed the files it was told of; then the
/// program exits with 130. Several actions run in the reverse order of their
/// making. `action` may only call what is safe in a signal handler.
class InterruptAction {
public:
  explicit InterruptAction(void (*action)());
  ~InterruptAction();
  InterruptAction(const InterruptAction &) = delete;
  InterruptAction &operator=(const InterruptAction &) = delete;

private:
  void (*action)();
};

} // namespace nibble

#endif // NIBBLE_SUPPORT_INTERRUPT_H
