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
