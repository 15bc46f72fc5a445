package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockspace"
)

// Leases (design 1.3): the table ends what is not renewed in time. Lock calls
// renew there; what renews besides is here: writing and touching, by the holder's
// user, and by root.

// renew renews what is held of d, by a user who writes or touches: through the
// open file h if anything is held through that, else whatever the user holds. h
// is nil if it was by path.
func (f *FS) renew(d *node, h *handle, uid uint32) {
	if f.policyOf(d).lease == 0 {
		return
	}
	through := h != nil && f.holdsThrough(d, h.ID)
	f.table.Renew(d.key, func(hold *lockspace.Hold) bool {
		if through {
			return hold.Party.Handle == h.ID
		}
		return uid == 0 || uid == hold.Party.Taker.UID || uid == hold.Party.Opener.UID
	})
}

// renewBy is renew for a SETATTR of times.
func (f *FS) renewBy(d *node, in *fuse.SetAttrIn) {
	var h *handle
	if fh, ok := in.GetFh(); ok {
		h = f.handles[fh]
	}
	f.renew(d, h, in.Caller.Uid)
}
