package fs

import (
	"fmt"
	"strings"
)

// What an O_EXCL hold of a lockspace lives as long as.
const (
	holdHandle = iota // its open file
	holdName          // its name
	holdOpen          // its open file, and every other open takes the lock too
	holdValues
)

var holdNames = [holdValues]string{"handle", "name", "open"}

// policy is what a lockspace does (design 1.3).
type policy struct {
	hold uint8
}

// Policy is a lockspace's policy as a command line gives it. The zero Policy is
// the default.
type Policy struct{ policy }

// ParsePolicy reads KEY=VALUE,KEY=VALUE. The error says what is wrong with it.
func ParsePolicy(text string) (Policy, error) {
	var p Policy
	for _, setting := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(setting, "=")
		if !ok {
			return p, fmt.Errorf("%q: KEY=VALUE expected", setting)
		}
		if err := p.set(key, value); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *policy) set(key, value string) error {
	switch key {
	case "hold":
		for i, name := range holdNames {
			if value == name {
				p.hold = uint8(i)
				return nil
			}
		}
		return fmt.Errorf("hold=%s: not one of %s", value, strings.Join(holdNames[:], ", "))
	}
	return fmt.Errorf("%s: no such policy; there is: hold", key)
}
