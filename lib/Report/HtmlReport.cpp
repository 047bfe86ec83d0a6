//===- HtmlReport.cpp - A report as a page --------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Charts.h"

#include "nibble/Support/Progress.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

#include <cmath>

using namespace nibble;
using llvm::formatv;

static constexpr const char *kStyle = R"(
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1100px;
       margin: 2em auto; padding: 0 1em; color: #222; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { padding: 3px 8px; border-bottom: 1px solid #e3e3e3;
         text-align: right; vertical-align: top; }
th { border-bottom-color: #888; } .text { text-align: left; }
code { font-size: 12px; } svg { width: 100%; height: auto; }
svg text { font-size: 12px; fill: #555; } .grid { stroke: #e8e8e8; }
.bar { fill: #4878a8; } .bar:hover { fill: #c05020; }
.curve { fill: none; stroke: #4878a8; stroke-width: 2; }
.dot { fill: #888; } .ring { fill: none; stroke: #c05020; stroke-width: 3; }
)";

/// "-" where there is nothing to show.
static std::string show(std::optional<double> value, const char *format) {
  if (!value || !std::isfinite(*value))
    return "-";
  std::string text;
  llvm::raw_string_ostream(text) << formatv(format, *value);
  return text;
}

static void printSummary(const QuantizationReport &report,
                         llvm::raw_ostream &os) {
  os << "<table>";
  auto row = [&](llvm::StringRef name, const std::string &value) {
    os << "<tr><td class=text>" << name << "</td><td class=text>"
       << escapeHTML(value) << "</td></tr>\n";
  };
  double bits = 8.0 * double(report.weightsAfter.weightBytes) /
                double(report.weightsBefore.parameters);
  row("model",
      formatv("{0}, {1}", report.input, formatBytes(report.bytesBefore)));
  row("written",
      formatv("{0}, {1} ({2:P1})", report.output,
              formatBytes(report.bytesAfter),
              double(report.bytesAfter) / double(report.bytesBefore)));
  row("scheme and method", report.scheme + ", " + report.method);
  if (!report.calibratedOn.empty())
    row("calibrated on", report.calibratedOn);
  row("all weights", formatv("{0} parameters, {1:f2} bits each, before {2:f2}",
                             report.weightsBefore.parameters, bits,
                             report.weightsBefore.bitsPerWeight()));
  row("time", formatv("{0:f1} s", report.seconds));
  row("checked", report.checked);
  os << "</table>\n";
}

static void printOutputs(const QuantizationReport &report,
                         llvm::raw_ostream &os) {
  os << "<h2>Outputs beside the float model's</h2>\n";
  if (report.evaluatedOn.empty()) {
    os << "<p>Not measured: calibration data (--calib) has the samples.</p>\n";
    return;
  }
  os << "<p>On " << escapeHTML(report.evaluatedOn)
     << ", both models in Nibble's own execution. Standard errors are those "
        "of independent rows.</p>\n<table><tr><th class=text>output</th><th>"
        "rows</th><th>cosine</th><th>SQNR dB</th><th>KL, nats</th><th>KL p99"
        "</th><th>KL max</th><th>top-1 agreement</th><th>perplexity, float"
        "</th><th>quantized</th></tr>\n";
  for (const OutputReport &output : report.outputs) {
    const OutputQuality &quality = output.quality;
    os << formatv("<tr><td class=text>{0}</td><td>{1}</td><td>{2:f6}</td>"
                  "<td>{3}</td>",
                  escapeHTML(output.name), quality.rows, quality.cosine,
                  show(quality.sqnr, "{0:f1}"));
    if (auto &kl = quality.divergence)
      os << formatv("<td>{0:f4} ± {1:f4}</td><td>{2:f3}</td><td>{3:f2}</td>"
                    "<td>{4:P1}</td>",
                    kl->mean.mean, kl->mean.error, kl->percentile99, kl->max,
                    kl->topAgreement);
    else
      os << "<td>-</td><td>-</td><td>-</td><td>-</td>";
    if (auto &perplexity = quality.perplexity)
      os << formatv("<td>{0:f2} ± {1:f2}</td><td>{2:f2} ± {3:f2}</td>",
                    perplexity->reference.mean, perplexity->reference.error,
                    perplexity->other.mean, perplexity->other.error);
    else
      os << "<td>-</td><td>-</td>";
    os << "</tr>\n";
  }
  os << "</table>\n";
}

static void printWeights(const QuantizationReport &report,
                         llvm::raw_ostream &os) {
  os << "<h2>Weights, the most harmed first</h2>\n<p>Errors are squared and "
        "relative to what the float weight computes; the last but two column "
        "compares with rounding to nearest.</p>\n<table><tr><th class=text>"
        "weight</th><th class=text>stored as</th><th>before</th><th>after</th>"
        "<th>SQNR dB</th><th>error, held out</th><th>error, calibration</th>"
        "<th>of rounding's</th><th>damping</th><th>s</th><th class=text>what "
        "may help</th></tr>\n";
  for (const HarmedWeight &harmed : rankByHarm(report.plan)) {
    const PlannedWeight &weight = *harmed.weight;
    os << formatv("<tr><td class=text>{0}<br>{1}</td><td class=text>{2}</td>"
                  "<td>{3}</td><td>{4}</td>",
                  escapeHTML(weight.name), weight.shape, weight.scheme,
                  formatBytes(weight.bytesBefore),
                  formatBytes(weight.bytesAfter));
    os << "<td>" << show(weight.sqnr, "{0:f1}") << "</td><td>"
       << show(weight.heldOutError, "{0:P3}") << "</td><td>"
       << show(weight.outputError, "{0:P3}") << "</td><td>"
       << show(weight.gain, "{0:P0}") << "</td><td>"
       << show(weight.damping, "{0:f3}") << "</td><td>"
       << show(weight.seconds, "{0:f2}") << "</td><td class=text><code>"
       << escapeHTML(harmed.cure) << "</code>";
    for (const std::string &note : weight.notes)
      os << "<br>" << escapeHTML(note);
    os << "</td></tr>\n";
  }
  os << "</table>\n";
}

static void printKept(const QuantizationReport &report, llvm::raw_ostream &os) {
  if (report.plan.kept.empty())
    return;
  os << "<h2>Left in float</h2>\n<table><tr><th class=text>node</th><th "
        "class=text>op</th><th class=text>why</th></tr>\n";
  for (const KeptNode &kept : report.plan.kept)
    os << "<tr><td class=text>" << escapeHTML(kept.node)
       << "</td><td class=text>" << escapeHTML(kept.opType)
       << "</td><td class=text>" << escapeHTML(kept.why) << "</td></tr>\n";
  os << "</table>\n";
}

void nibble::printHTML(const QuantizationReport &report,
                       llvm::raw_ostream &os) {
  std::string title = escapeHTML("nibble quantize " + report.input);
  os << "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><title>"
     << title << "</title><style>" << kStyle << "</style></head><body>\n<h1>"
     << title << "</h1>\n";
  printSummary(report, os);
  printOutputs(report, os);
  if (report.budget) {
    os << "<h2>Bits against loss</h2>\n<p>Predicted loss (divergence in nats "
          "where outputs are distributions) of the best mixtures "
          "(line) and of one scheme for all (dots); the ring is what was "
          "chosen.</p>\n";
    drawBudget(*report.budget, os);
  }
  os << "<h2>Error of what each weight computes</h2>\n";
  drawErrors(report.plan, os);
  printWeights(report, os);
  printKept(report, os);
  os << "</body></html>\n";
}
