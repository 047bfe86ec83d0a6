//===- Scheme.cpp - The short names of quantization schemes ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/Scheme.h"

#include <charconv>

using namespace nibble;

static constexpr size_t largestGroup = 1 << 20;

BlockShape Scheme::blockShape() const {
  switch (granularity) {
  case Granularity::Tensor:
    return {0, 0};
  case Granularity::Channel:
    return {0, 1};
  case Granularity::Group:
    break;
  }
  return {groupSize, 1};
}

bool Scheme::operator==(const Scheme &other) const {
  return storage == other.storage && blockShape() == other.blockShape() &&
         symmetric == other.symmetric && scaleFormat == other.scaleFormat;
}

static bool consume(std::string_view &text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix)
    return false;
  text.remove_prefix(prefix.size());
  return true;
}

/// Takes a decimal number without sign or leading zero off the front.
static bool consumeNumber(std::string_view &text, size_t &number) {
  auto [end, status] =
      std::from_chars(text.data(), text.data() + text.size(), number);
  if (status != std::errc() || text[0] == '0')
    return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

/// Takes the name of a storage without a zero point off the front.
static const char *consumeStorage(std::string_view &text) {
  for (const char *name : {"nf4", "fp4", "f8E4M3FN", "f8E5M2", "f4E2M1FN"})
    if (consume(text, name))
      return name;
  return nullptr;
}

Result<Scheme> nibble::parseScheme(std::string_view name) {
  auto fail = [&](std::string_view why) {
    return Failure{"'" + std::string(name) +
                   "' is not a scheme: " + std::string(why)};
  };
  Scheme scheme;
  std::string_view rest = name;
  size_t bits = 4;
  bool isInteger = false;
  if (const char *storage = consumeStorage(rest)) {
    scheme.storage = *parseStorage(storage);
  } else if (consume(rest, "w")) {
    if (!consumeNumber(rest, bits) || bits < 2 || bits > 8)
      return fail("after 'w' comes the number of bits, 2 to 8, as in 'w4g128'");
    isInteger = true;
  } else {
    return fail("it starts with 'w' and the number of bits, or with nf4, fp4, "
                "f8E4M3FN, f8E5M2 or f4E2M1FN, as in 'w4g128', 'w4g32s', "
                "'w8c', 'w4t', 'nf4g64'");
  }

  if (consume(rest, "g")) {
    if (!consumeNumber(rest, scheme.groupSize) ||
        scheme.groupSize > largestGroup)
      return fail("after 'g' comes the size of a group, 1 to 1048576, as in "
                  "'w4g128'");
  } else if (consume(rest, "c")) {
    scheme.granularity = Granularity::Channel;
  } else if (consume(rest, "t")) {
    scheme.granularity = Granularity::Tensor;
  } else {
    return fail("after '" +
                std::string(name.substr(0, name.size() - rest.size())) +
                "' comes 'g' and the size of a group, 'c' (per output channel) "
                "or 't' (per tensor)");
  }

  bool suffix = consume(rest, "s");
  if (suffix && !isInteger)
    return fail("code books and floats have no zero point, so there is no 's' "
                "after them");
  if (!rest.empty())
    return fail("nothing but 's' (symmetric) may come at the end, not '" +
                std::string(rest) + "'");
  scheme.symmetric = suffix || !isInteger;
  if (isInteger)
    scheme.storage =
        suffix ? StorageFormat::getSigned(static_cast<unsigned>(bits))
               : StorageFormat::getUnsigned(static_cast<unsigned>(bits));
  return scheme;
}

std::string nibble::printScheme(const Scheme &scheme) {
  std::string name = scheme.storage.isInteger()
                         ? "w" + std::to_string(scheme.storage.bits)
                         : printStorage(scheme.storage);
  switch (scheme.granularity) {
  case Granularity::Tensor:
    name += "t";
    break;
  case Granularity::Channel:
    name += "c";
    break;
  case Granularity::Group:
    name += "g" + std::to_string(scheme.groupSize);
    break;
  }
  return scheme.storage.isInteger() && scheme.symmetric ? name + "s" : name;
}
