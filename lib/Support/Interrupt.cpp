//===- Interrupt.cpp - What is done when a signal ends a tool -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Support/Interrupt.h"

#include "llvm/Support/Signals.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <iterator>
#include <unistd.h>

using namespace nibble;

using Action = void (*)();
/// A plain array, as a handler must find it whole at any moment.
static std::atomic<Action> actions[8];

static void runActions() {
  std::for_each(std::rbegin(actions), std::rend(actions),
                [](std::atomic<Action> &action) {
                  if (Action run = action.load())
                    run();
                });
  ::_exit(128 + SIGINT);
}

InterruptAction::InterruptAction(void (*action)()) : action(action) {
  for (std::atomic<Action> &place : actions) {
    Action none = nullptr;
    if (place.compare_exchange_strong(none, action))
      break;
  }
  llvm::sys::SetInterruptFunction(runActions);
}

InterruptAction::~InterruptAction() {
  for (std::atomic<Action> &place : actions) {
    Action mine = action;
    if (place.compare_exchange_strong(mine, nullptr))
      break;
  }
  bool isLast = std::all_of(std::begin(actions), std::end(actions),
                            [](auto &place) { return !place.load(); });
  if (isLast)
    llvm::sys::SetInterruptFunction(nullptr);
}
