//===- TokenizerProcess.cpp - Words and tokens ----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "TokenizerProcess.h"

#include "Session.h"

#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringExtras.h"

#include <csignal>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace nibble;
using llvm::Error;
using llvm::Expected;

// Writes the tokens of the prompt to a descriptor (or why there are none), then
// prints what the tokens of its standard input say. A character may take
// several tokens.
static const char script[] = R"python(
import os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
path, prompt, channel = sys.argv[1], sys.argv[2], os.fdopen(int(sys.argv[3]), "w")
def fail(why):
    channel.write("error " + " ".join(str(why).split()) + "\n"); sys.exit(1)
try:
    from tokenizers import Tokenizer
except Exception:
    fail("it takes Python's package 'tokenizers'; install it (pip install tokenizers) "
         "or give --prompt-ids")
try:
    tokenizer = Tokenizer.from_file(path)
except Exception as error:
    fail("'" + path + "' is no tokenizer.json: " + str(error))
ids = tokenizer.encode(prompt).ids
special = [i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special]
channel.write("prompt " + " ".join(map(str, ids)) + "\n")
channel.write("special " + " ".join(map(str, special)) + "\n")
channel.close()
shown = ""
def show(last=False):
    global shown
    text = tokenizer.decode(ids)
    if last or not text.endswith("\ufffd"):
        print(text[len(shown):], end="", flush=True)
        shown = text
show()
for line in sys.stdin:
    ids.append(int(line))
    show()
show(last=True)
print()
)python";

static Error makeError(const llvm::Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

/// The numbers behind `word` in a line of the process.
static Expected<std::vector<int64_t>> readNumbers(std::FILE *from,
                                                  llvm::StringRef word) {
  std::string line;
  for (int c; (c = std::fgetc(from)) != EOF && c != '\n';)
    line += static_cast<char>(c);
  llvm::StringRef rest(line);
  if (rest.consume_front("error "))
    return makeError(rest);
  llvm::SmallVector<llvm::StringRef> parts;
  bool whole = rest.consume_front(word);
  rest.split(parts, ' ', /*MaxSplit=*/-1, /*KeepEmpty=*/false);
  std::vector<int64_t> numbers;
  for (llvm::StringRef part : parts)
    whole &= llvm::to_integer(part, numbers.emplace_back());
  if (!whole)
    return makeError("the Python process that reads the tokenizer failed");
  return numbers;
}

Expected<std::unique_ptr<TokenizerProcess>>
TokenizerProcess::start(llvm::StringRef path, llvm::StringRef prompt,
                        bool silent) {
  std::optional<std::string> python = findPython();
  if (!python)
    return makeError("a tokenizer takes python3, which is not there; install "
                     "it or give --prompt-ids");
  int down[2], up[2];
  if (::pipe2(down, O_CLOEXEC) != 0 || ::pipe2(up, O_CLOEXEC) != 0)
    return makeError("cannot make a pipe to a Python process");
  std::string file = path.str(), text = prompt.str(),
              channel = std::to_string(up[1]);
  const char *arguments[] = {python->c_str(), "-c",         script,
                             file.c_str(),    text.c_str(), channel.c_str(),
                             nullptr};
  // A process that ended is an error that is reported, not a signal.
  std::signal(SIGPIPE, SIG_IGN);
  std::unique_ptr<TokenizerProcess> result(new TokenizerProcess());
  result->process = ::fork();
  if (result->process == 0) {
    ::dup2(down[0], STDIN_FILENO);
    if (silent)
      ::dup2(::open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
    ::fcntl(up[1], F_SETFD, 0);
    ::execvp(arguments[0], const_cast<char *const *>(arguments));
    ::_exit(127);
  }
  ::close(down[0]);
  ::close(up[1]);
  result->tokens = ::fdopen(down[1], "w");
  std::FILE *answers = ::fdopen(up[0], "r");
  auto ids = readNumbers(answers, "prompt");
  auto special = ids ? readNumbers(answers, "special") : std::vector<int64_t>();
  std::fclose(answers);
  if (!ids)
    return ids.takeError();
  if (!special)
    return special.takeError();
  result->prompt = std::move(*ids);
  result->special.insert_range(*special);
  return result;
}

bool TokenizerProcess::print(int64_t token) {
  std::fprintf(tokens, "%lld\n", static_cast<long long>(token));
  return std::fflush(tokens) == 0;
}

void TokenizerProcess::finish() {
  if (tokens)
    std::fclose(tokens);
  tokens = nullptr;
  int status;
  if (process > 0)
    ::waitpid(process, &status, 0);
  process = -1;
}

TokenizerProcess::~TokenizerProcess() { finish(); }
