// Package openmetrics reads the text format of OpenMetrics 1.0, as strictly as the
// specification says it for counters, gauges and histograms without exemplars and
// timestamps, which is all that lockfs writes: tests find by it what a scraper
// would refuse.
package openmetrics

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Samples are values by name and labels, as they are written.
type Samples map[string]float64

var (
	metadata = regexp.MustCompile(`^# (TYPE|UNIT|HELP) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$`)
	sample   = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	label    = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)`)
)

// suffixes are the ends of samples' names.
var suffixes = map[string][]string{
	"counter": {"_total"}, "gauge": {""}, "histogram": {"_bucket", "_count", "_sum"},
}

// family is a metric family that is being read.
type family struct {
	name, kind string
	said       map[string]bool
	buckets    map[string]*buckets // of a histogram, by the other labels
}

// buckets are those of one histogram.
type buckets struct {
	bound, count float64
	counted, sum bool
}

// LabelValue returns the value of a label of a sample, by the sample's name and
// labels as they are written. ok is false if it has no such label.
func LabelValue(sampled, name string) (value string, ok bool) {
	m := sample.FindStringSubmatch(sampled + " 0")
	if m == nil {
		return "", false
	}
	for rest := m[2]; rest != ""; {
		l := label.FindStringSubmatch(rest)
		if l == nil {
			return "", false
		}
		if l[1] == name {
			return strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n").Replace(l[2]), true
		}
		rest = rest[len(l[0]):]
	}
	return "", false
}

// Parse reads text. The error says which line is wrong, and how.
func Parse(text string) (Samples, error) {
	samples, families := make(Samples), make(map[string]bool)
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("it is not UTF-8")
	}
	body, ok := strings.CutSuffix(text, "# EOF\n")
	if !ok || body != "" && !strings.HasSuffix(body, "\n") {
		return nil, fmt.Errorf("it does not end with # EOF")
	}
	now := &family{}
	for i, line := range strings.Split(strings.TrimSuffix(body, "\n"), "\n") {
		fail := func(what string) (Samples, error) { return nil, fmt.Errorf("line %d, %q: %s", i+1, line, what) }
		if m := metadata.FindStringSubmatch(line); m != nil {
			if m[2] != now.name {
				if err := now.end(); err != nil {
					return fail(err.Error())
				}
				if families[m[2]] {
					return fail("the family was there before")
				}
				families[m[2]] = true
				now = &family{name: m[2], said: make(map[string]bool), buckets: make(map[string]*buckets)}
			}
			if now.said[m[1]] || now.said["sample"] {
				return fail("twice, or after samples")
			}
			now.said[m[1]] = true
			switch {
			case m[1] == "TYPE" && suffixes[m[3]] == nil:
				return fail("unknown type")
			case m[1] == "TYPE":
				now.kind = m[3]
			case m[1] == "UNIT" && !strings.HasSuffix(now.name, "_"+m[3]):
				return fail("the name does not end with the unit")
			case m[1] == "HELP" && strings.Contains(m[3], `"`):
				return fail("a quote without a backslash")
			}
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			return fail("neither metadata nor a sample")
		}
		suffix, ok := strings.CutPrefix(m[1], now.name)
		if !ok || now.kind == "" || !contains(suffixes[now.kind], suffix) {
			return fail("not of the family " + now.name)
		}
		now.said["sample"] = true
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil || now.kind != "gauge" && (value < 0 || math.IsNaN(value) || math.IsInf(value, 0)) {
			return fail("not a value")
		}
		name, bound, others := strings.TrimSuffix(m[1]+"{"+m[2]+"}", "{}"), "", ""
		seen := make(map[string]bool)
		for rest := m[2]; rest != ""; {
			l := label.FindStringSubmatch(rest)
			if l == nil || seen[l[1]] {
				return fail("labels")
			}
			seen[l[1]] = true
			if rest = rest[len(l[0]):]; l[1] == "le" {
				bound = l[2]
			} else {
				others += l[1] + "=" + l[2] + ","
			}
		}
		if _, twice := samples[name]; twice {
			return fail("twice")
		}
		samples[name] = value
		if now.kind == "histogram" {
			if err := now.add(suffix, others, bound, value); err != nil {
				return fail(err.Error())
			}
		}
	}
	return samples, now.end()
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// add adds a sample of a histogram: its buckets come in the order of their bounds,
// which are floats, up to +Inf, and count what is below as well.
func (f *family) add(suffix, others, bound string, value float64) error {
	b := f.buckets[others]
	if b == nil {
		b = &buckets{bound: math.Inf(-1)}
		f.buckets[others] = b
	}
	switch suffix {
	case "_bucket":
		le, err := strconv.ParseFloat(bound, 64)
		if err != nil || !strings.ContainsAny(bound, ".e") && bound != "+Inf" {
			return fmt.Errorf("%q is no bound", bound)
		}
		if le <= b.bound || value < b.count || value != math.Trunc(value) || b.counted {
			return fmt.Errorf("bound %v, count %v after bound %v, count %v", le, value, b.bound, b.count)
		}
		b.bound, b.count = le, value
	case "_count":
		if b.counted = true; value != b.count || !math.IsInf(b.bound, 1) {
			return fmt.Errorf("count %v, and %v in the last bucket, of %v", value, b.count, b.bound)
		}
	case "_sum":
		b.sum = true
	}
	return nil
}

// end checks that a family is whole.
func (f *family) end() error {
	if f.name != "" && (!f.said["TYPE"] || !f.said["HELP"]) {
		return fmt.Errorf("%s has no type or no help", f.name)
	}
	for labels, b := range f.buckets {
		if !b.counted || !b.sum {
			return fmt.Errorf("%s{%s} has no count or no sum", f.name, labels)
		}
	}
	return nil
}
