//===- Storage.cpp - What one stored code stands for ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/Storage.h"
#include "FloatBits.h"

#include <algorithm>
#include <charconv>
#include <cmath>

using namespace nibble;

StorageFormat StorageFormat::getSigned(unsigned bits) {
  StorageFormat storage;
  storage.kind = StorageKind::Signed;
  storage.bits = bits;
  return storage;
}

StorageFormat StorageFormat::getUnsigned(unsigned bits) {
  StorageFormat storage;
  storage.bits = bits;
  return storage;
}

StorageFormat StorageFormat::getFloat(FloatFormat format) {
  StorageFormat storage;
  storage.kind = StorageKind::Float;
  storage.bits = getInfo(format).bits;
  storage.floatFormat = format;
  return storage;
}

StorageFormat StorageFormat::getCodeBook(std::vector<float> values) {
  StorageFormat storage;
  storage.kind = StorageKind::CodeBook;
  storage.bits = 1;
  while ((size_t(1) << storage.bits) < values.size())
    ++storage.bits;
  storage.codeBook = std::move(values);
  return storage;
}

// Both lists are those of bitsandbytes; NF4 is from QLoRA
// (https://arxiv.org/abs/2305.14314), appendix E.
StorageFormat StorageFormat::getNF4() {
  return getCodeBook(
      {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
       -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f,
       0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,
       0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
       0.7229568362236023f, 1.0f});
}

StorageFormat StorageFormat::getFP4() {
  std::vector<float> values = {0.0f, 0.0625f, 8.0f, 12.0f,
                               4.0f, 6.0f,    2.0f, 3.0f};
  for (float &value : values)
    value /= 12.0f;
  for (size_t i = 0; i < 8; ++i)
    values.push_back(-values[i]);
  return getCodeBook(std::move(values));
}

/// Bit for bit, so that -0 differs from 0.
static bool sameBits(const std::vector<float> &a, const std::vector<float> &b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](float x, float y) { return bitsOf(x) == bitsOf(y); });
}

bool StorageFormat::operator==(const StorageFormat &other) const {
  if (kind != other.kind || bits != other.bits)
    return false;
  if (kind == StorageKind::Float)
    return floatFormat == other.floatFormat;
  return kind != StorageKind::CodeBook || sameBits(codeBook, other.codeBook);
}

static std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ')
    text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ')
    text.remove_suffix(1);
  return text;
}

static Failure invalidStorage(std::string_view text, std::string_view why) {
  return {"'" + std::string(text) +
          "' is not a storage format: " + std::string(why)};
}

/// `list` is what stands between the brackets of `text`.
static Result<StorageFormat> parseCodeBook(std::string_view text,
                                           std::string_view list) {
  std::vector<float> values;
  for (bool more = true; more;) {
    size_t comma = list.find(',');
    more = comma != std::string_view::npos;
    std::string_view entry = trim(list.substr(0, comma));
    float value = 0;
    auto [end, status] =
        std::from_chars(entry.data(), entry.data() + entry.size(), value);
    if (status != std::errc() || end != entry.data() + entry.size() ||
        !std::isfinite(value))
      return invalidStorage(text, "'" + std::string(entry) +
                                      "' is not a finite number");
    values.push_back(value);
    if (more)
      list.remove_prefix(comma + 1);
  }
  if (values.size() > 256)
    return invalidStorage(text, "a code book has at most 256 entries");
  return StorageFormat::getCodeBook(std::move(values));
}

Result<StorageFormat> nibble::parseStorage(std::string_view text) {
  if (text == "nf4")
    return StorageFormat::getNF4();
  if (text == "fp4")
    return StorageFormat::getFP4();
  for (FloatFormat format :
       {FloatFormat::F8E4M3FN, FloatFormat::F8E5M2, FloatFormat::F4E2M1FN})
    if (text == getInfo(format).name)
      return StorageFormat::getFloat(format);
  if (text.size() == 2 && text[1] >= '2' && text[1] <= '8') {
    unsigned bits = static_cast<unsigned>(text[1] - '0');
    if (text[0] == 'i')
      return StorageFormat::getSigned(bits);
    if (text[0] == 'u')
      return StorageFormat::getUnsigned(bits);
  }
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']')
    return parseCodeBook(text, text.substr(1, text.size() - 2));
  return invalidStorage(text,
                        "expected i2 to i8, u2 to u8, f8E4M3FN, f8E5M2, "
                        "f4E2M1FN, nf4, fp4 or a list such as [-1, 0, 1]");
}

std::string nibble::printStorage(const StorageFormat &storage) {
  switch (storage.kind) {
  case StorageKind::Signed:
    return "i" + std::to_string(storage.bits);
  case StorageKind::Unsigned:
    return "u" + std::to_string(storage.bits);
  case StorageKind::Float:
    return getInfo(storage.floatFormat).name;
  case StorageKind::CodeBook:
    break;
  }
  if (storage == StorageFormat::getNF4())
    return "nf4";
  if (storage == StorageFormat::getFP4())
    return "fp4";
  std::string text = "[";
  for (float value : storage.codeBook) {
    char digits[32];
    auto [end, status] = std::to_chars(digits, digits + sizeof(digits), value);
    (void)status;
    text += (text.size() > 1 ? ", " : "") + std::string(digits, end);
  }
  return text + "]";
}

int nibble::smallestCode(const StorageFormat &storage) {
  return storage.kind == StorageKind::Signed ? -(1 << (storage.bits - 1)) : 0;
}

int nibble::largestCode(const StorageFormat &storage) {
  if (storage.kind == StorageKind::CodeBook)
    return static_cast<int>(storage.codeBook.size()) - 1;
  return smallestCode(storage) + (1 << storage.bits) - 1;
}

float nibble::codeValue(const StorageFormat &storage, uint8_t code) {
  unsigned masked = code & ((1u << storage.bits) - 1);
  switch (storage.kind) {
  case StorageKind::Signed:
    // Move the sign bit to the top and back.
    return static_cast<float>(
        static_cast<int>(masked ^ (1u << (storage.bits - 1))) -
        (1 << (storage.bits - 1)));
  case StorageKind::Unsigned:
    return static_cast<float>(masked);
  case StorageKind::Float:
    return decodeFloat(storage.floatFormat, masked);
  case StorageKind::CodeBook:
    break;
  }
  return masked < storage.codeBook.size() ? storage.codeBook[masked]
                                          : floatOf(0x7fc00000);
}

float nibble::largestMagnitude(const StorageFormat &storage) {
  if (storage.kind == StorageKind::Float)
    return largestFinite(storage.floatFormat);
  float largest = 0;
  for (float value : storage.codeBook)
    largest = std::max(largest, std::fabs(value));
  if (storage.isInteger())
    largest = static_cast<float>(
        std::max(-smallestCode(storage), largestCode(storage)));
  return largest;
}

SortedCodeBook nibble::sortCodeBook(const StorageFormat &storage) {
  std::vector<std::pair<float, unsigned>> entries;
  entries.reserve(storage.codeBook.size());
  for (size_t i = 0; i < storage.codeBook.size(); ++i)
    entries.emplace_back(storage.codeBook[i], static_cast<unsigned>(i));
  // -0 equals 0 here, so that the lower code stays of two equal values.
  std::sort(entries.begin(), entries.end());
  entries.erase(
      std::unique(entries.begin(), entries.end(),
                  [](auto &a, auto &b) { return a.first == b.first; }),
      entries.end());

  SortedCodeBook sorted;
  for (size_t i = 0; i < entries.size(); ++i) {
    sorted.codes.push_back(static_cast<uint8_t>(entries[i].second));
    sorted.values.push_back(entries[i].first);
    if (i == 0)
      continue;
    double middle = (static_cast<double>(entries[i - 1].first) +
                     static_cast<double>(entries[i].first)) /
                    2;
    // The greatest float that still goes down.
    float threshold = static_cast<float>(middle);
    bool tieGoesUp = entries[i].second < entries[i - 1].second;
    if (threshold > middle || (threshold == middle && tieGoesUp))
      threshold = std::nextafter(threshold, -INFINITY);
    sorted.thresholds.push_back(threshold);
  }
  return sorted;
}

static uint8_t nearestEntry(const std::vector<float> &codeBook, float x) {
  // The neighbours of x; the first of equal entries.
  const float *below = nullptr, *above = nullptr;
  for (const float &entry : codeBook) {
    if (entry <= x && (!below || entry > *below))
      below = &entry;
    if (entry > x && (!above || entry < *above))
      above = &entry;
  }
  const float *nearest = below ? below : above;
  if (below && above) {
    double middle =
        (static_cast<double>(*below) + static_cast<double>(*above)) / 2;
    if (x > middle || (x == middle && above < below))
      nearest = above;
  }
  return static_cast<uint8_t>(nearest - codeBook.data());
}

uint8_t nibble::encodeNearest(const StorageFormat &storage, float x) {
  if (storage.kind == StorageKind::Float)
    return static_cast<uint8_t>(
        encodeFloat(storage.floatFormat, x, Overflow::Saturate));
  if (std::isnan(x))
    x = 0;
  if (storage.kind == StorageKind::CodeBook)
    return nearestEntry(storage.codeBook, x);
  float least = static_cast<float>(smallestCode(storage));
  float greatest = static_cast<float>(largestCode(storage));
  return static_cast<uint8_t>(
      static_cast<int>(std::nearbyint(std::clamp(x, least, greatest))));
}
