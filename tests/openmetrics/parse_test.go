package openmetrics

import "testing"

func TestParse(t *testing.T) {
	const head = "# TYPE a counter\n# HELP a b\n"
	const histogram = "# TYPE h_s histogram\n# UNIT h_s s\n# HELP h_s b\n"
	for text, good := range map[string]bool{
		"# EOF\n":                   false,
		"":                          false,
		head + "a_total 1\n# EOF\n": true,
		head + "a_total{x=\"1\"} 1\na_total{x=\"2\"} 1\n# EOF\n": true,
		head + "a_total 1\n":                                   false,
		head + "a_total 1\n# EOF":                              false,
		head + "a 1\n# EOF\n":                                  false,
		head + "b_total 1\n# EOF\n":                            false,
		head + "a_total -1\n# EOF\n":                           false,
		head + "a_total 1\na_total 1\n# EOF\n":                 false,
		head + "a_total{x=\"1\",x=\"1\"} 1\n# EOF\n":           false,
		head + "a_total{x=\"\\\"} 1\n# EOF\n":                  false,
		head + "a_total{x=\"\u00e9 }\"} 1\n# EOF\n":            true,
		head + "a_total{x=\"\xe9\"} 1\n# EOF\n":                false,
		head + "a_total 1\n" + head + "# EOF\n":                false,
		head + "a_total 1\n\n# EOF\n":                          false,
		"# TYPE a counter\na_total 1\n# EOF\n":                 false,
		"# TYPE a thing\n# HELP a b\na 1\n# EOF\n":             false,
		"# TYPE a gauge\n# UNIT a s\n# HELP a b\na 1\n# EOF\n": false,
		histogram + `h_s_bucket{le="1.0"} 1` + "\n" + `h_s_bucket{le="+Inf"} 2` + "\nh_s_count 2\nh_s_sum 3\n# EOF\n": true,
		histogram + `h_s_bucket{le="1"} 1` + "\n" + `h_s_bucket{le="+Inf"} 2` + "\nh_s_count 2\nh_s_sum 3\n# EOF\n":   false,
		histogram + `h_s_bucket{le="1.0"} 3` + "\n" + `h_s_bucket{le="+Inf"} 2` + "\nh_s_count 2\nh_s_sum 3\n# EOF\n": false,
		histogram + `h_s_bucket{le="+Inf"} 2` + "\nh_s_count 1\nh_s_sum 3\n# EOF\n":                                   false,
		histogram + `h_s_bucket{le="+Inf"} 2` + "\nh_s_count 2\n# EOF\n":                                              false,
		histogram + `h_s_bucket{le="1.0"} 2` + "\nh_s_count 2\nh_s_sum 3\n# EOF\n":                                    false,
	} {
		if _, err := Parse(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLabelValue(t *testing.T) {
	for text, want := range map[string]string{
		`a{x="1"}`: "1", `a{y="2",x="1"}`: "1", `a{x="1",y="2"}`: "1", `a{x=""}`: "",
		`a{x="\\n\n\"\\"}`: "\\n\n\"\\", `a{x="},{ y"}`: "},{ y",
	} {
		if got, ok := LabelValue(text, "x"); got != want || !ok {
			t.Errorf("%s: %q, %v, want %q", text, got, ok, want)
		}
	}
	for _, text := range []string{"a", `a{y="x"}`, `a{y="x=1"}`, `a{x="\"}`, ""} {
		if got, ok := LabelValue(text, "x"); ok {
			t.Errorf("%s: %q", text, got)
		}
	}
}
