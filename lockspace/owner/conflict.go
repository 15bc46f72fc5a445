package owner

import (
	"strconv"
	"strings"
)

// Conflict is something that kept an owner from getting what it asked for.
type Conflict struct {
	// State is what is in the way: "held", "waiting", "outside", "grace" or "stale"
	// (a state is out of date).
	State string
	// Pid and UID are whose it is; 0 if that is not known, or nobody's.
	Pid, UID int
	// Via and Mode are how it is held or waited for, "" if it is not.
	Via, Mode string
	// Token is the fencing token, 0 if there is none.
	Token uint64
	// Owner is the name of the owner that holds it, "" if none does.
	Owner string
	// Resource is what it is about.
	Resource Resource
}

// Conflicts returns what kept the owner from getting what it asked for the last time;
// none if it got it. Keys that this package does not know are left out.
func (o *Owner) Conflicts() ([]Conflict, error) {
	text, err := o.Get("conflicts")
	if err != nil {
		return nil, err
	}
	var all []Conflict
	for line := range strings.Lines(text) {
		words, resource, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " resource=")
		var c Conflict
		for _, word := range strings.Fields(words) {
			key, value, _ := strings.Cut(word, "=")
			number, _ := strconv.ParseUint(value, 10, 64)
			switch key {
			case "state":
				c.State = value
			case "pid":
				c.Pid = int(number)
			case "uid":
				c.UID = int(number)
			case "via":
				c.Via = value
			case "mode":
				c.Mode = value
			case "token":
				c.Token = number
			case "owner":
				c.Owner = unescape(value)
			}
		}
		// A very long path is cut off: what is left of it is shown.
		c.Resource, _ = parse(resource)
		all = append(all, c)
	}
	return all, nil
}
