import torch

from stl_deploy.data import augment


def _draws():
    return torch.Generator().manual_seed(0)


def test_nothing_is_moved_unless_asked_for():
    images = torch.rand(3, 1, 4, 5)
    assert torch.equal(augment(images, _draws()), images)


def test_images_move_by_up_to_shift_pixels_and_zeros_move_in():
    images = torch.zeros(400, 1, 9, 9)
    images[:, 0, 4, 3] = 1
    places = augment(images, _draws(), shift=2).nonzero()
    assert len(places) == 400
    moved = {(int(row) - 4, int(column) - 3) for _, _, row, column in places}
    assert moved == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}
    corner = torch.zeros(400, 1, 3, 3)
    corner[:, :, 0, 0] = 1
    left = augment(corner, _draws(), shift=1).sum((1, 2, 3))
    assert set(left.tolist()) == {0.0, 1.0}


def test_all_frames_and_channels_of_a_sample_move_alike():
    images = torch.rand(1, 1, 1, 6, 7).expand(20, 4, 2, 6, 7)
    moved = augment(images.clone(), _draws(), shift=2, flip=True)
    assert moved.shape == images.shape
    assert torch.equal(moved, moved[:, :1, :1].expand_as(moved))


def test_about_half_are_mirrored():
    images = torch.arange(3.0).expand(400, 1, 2, 3)
    mirrored = augment(images, _draws(), flip=True)[:, 0, 0, 0] == 2
    assert 150 < int(mirrored.sum()) < 250
    assert torch.equal(augment(images, _draws(), flip=True)[mirrored], images[mirrored].flip(-1))


def test_cutout_takes_one_square_out_of_each_image():
    images = torch.ones(400, 2, 3, 9, 7)
    cut = augment(images, _draws(), cutout=3)
    assert torch.equal(cut, cut[:, :1, :1].expand_as(cut))
    lost = cut[:, 0, 0] == 0
    assert lost.sum((1, 2)).unique().tolist() == [4, 6, 9]
    assert (lost.any(2).sum(1) * lost.any(1).sum(1) == lost.sum((1, 2))).all()
    assert lost.any(0).all()
    assert len({str(one.tolist()) for one in lost}) == 63
