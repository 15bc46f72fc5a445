package fs

func (Proc) Resolve(tid, pid uint32) (Kin, bool) { return Kin{}, false }

type Stub struct{}

func NewWatcher() (*Stub, error)           { return &Stub{}, nil }
func (Stub) Watch(Identity, func()) func() { return func() {} }
