"""Searching and retrieving with dicomweb-client, which somebody else wrote, over a real connection."""

from __future__ import annotations

import asyncio
from io import BytesIO

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from requests import HTTPError

from unit.gateway.dicomweb.catalogue_kit import catalogue, ct


@pytest.fixture
async def client(gateway, address):
    """A client of a gateway that knows a study of two series, of three and of one instance, and another study."""
    for number in (3, 1, 2):
        await catalogue(gateway, ct(number=number))
    await catalogue(gateway, ct(series="1.2.3.5", Modality="MR"))
    await catalogue(gateway, ct(study="1.2.9", series="1.2.9.1", PatientID="P-2", StudyDate="20250102"))
    return DICOMwebClient(f"{address}/dicomweb")


async def in_thread(call, *arguments, **options):
    return await asyncio.to_thread(call, *arguments, **options)


async def test_search_for_studies(client):
    """Studies come newest first, with what is counted of them and an address that leads to them."""
    found = await in_thread(client.search_for_studies)
    assert [one["0020000D"]["Value"] for one in found] == [["1.2.3"], ["1.2.9"]]
    assert found[0]["00080061"]["Value"] == ["CT", "MR"]
    assert found[0]["00201206"]["Value"] == [2]
    assert found[0]["00201208"]["Value"] == [4]
    assert found[0]["00081190"]["Value"] == [f"{client.base_url}/studies/1.2.3"]
    assert found[0]["00100010"]["Value"] == [{"Alphabetic": "Phantom^Chest"}]


MATCHES = [
    ({"PatientID": "P-2"}, ["1.2.9"]),
    ({"PatientID": "P-?"}, ["1.2.3", "1.2.9"]),
    ({"PatientID": "p-2"}, []),
    ({"PatientName": "phantom*"}, ["1.2.3", "1.2.9"]),
    ({"PatientName": "Phantom^Chest"}, ["1.2.3", "1.2.9"]),
    ({"PatientName": "Phantom"}, []),
    ({"StudyDate": "20260101-"}, ["1.2.3"]),
    ({"StudyDate": "-20251231"}, ["1.2.9"]),
    ({"StudyDate": "20250101-20261231"}, ["1.2.3", "1.2.9"]),
    ({"StudyTime": "10-10"}, ["1.2.3", "1.2.9"]),
    ({"StudyTime": "1016-"}, []),
    ({"StudyInstanceUID": "1.2.3,1.2.9"}, ["1.2.3", "1.2.9"]),
    ({"StudyInstanceUID": "1.2.3\\1.2.7"}, ["1.2.3"]),
    ({"ModalitiesInStudy": "MR"}, ["1.2.3"]),
    ({"Modality": "MR"}, ["1.2.3"]),
    ({"00100020": "P-1"}, ["1.2.3"]),
    ({"AccessionNumber": ""}, ["1.2.3", "1.2.9"]),
    ({"AccessionNumber": "A%"}, []),
    ({"AccessionNumber": "[A]1*"}, []),
]


async def test_matching_of_studies(client):
    """Single values, lists of UIDs, wildcards and ranges match as PS3.4 C.2.2.2 says."""
    for filters, expected in MATCHES:
        found = await in_thread(client.search_for_studies, search_filters=filters)
        assert [one["0020000D"]["Value"][0] for one in found] == expected, filters


async def test_pages_and_fields(client):
    """A client goes through pages to the end, and gets the fields that it asks for."""
    assert len(await in_thread(client.search_for_studies, limit=1, get_remaining=True)) == 2
    (second,) = await in_thread(client.search_for_studies, limit=1, offset=1, fields=["PatientSize"])
    assert second["0020000D"]["Value"] == ["1.2.9"]
    series = await in_thread(client.search_for_series, "1.2.3", fields=["all"])
    assert [one["00201209"]["Value"] for one in series] == [[3], [1]]


async def test_search_for_series_and_instances(client):
    """Series and instances are found at every level of the path, with what the path does not say already."""
    everywhere = await in_thread(client.search_for_series)
    assert {one["0020000E"]["Value"][0] for one in everywhere} == {"1.2.3.4", "1.2.3.5", "1.2.9.1"}
    assert all("00100010" in one for one in everywhere)
    (mr,) = await in_thread(client.search_for_series, "1.2.3", search_filters={"Modality": "MR"})
    assert "00100010" not in mr
    instances = await in_thread(client.search_for_instances, "1.2.3", "1.2.3.4")
    assert [one["00200013"]["Value"] for one in instances] == [[1], [2], [3]]
    assert instances[0]["00083002"]["Value"] == ["1.2.840.10008.1.2.1"]
    assert instances[0]["00080056"]["Value"] == ["ONLINE"]
    (second,) = await in_thread(client.search_for_instances, search_filters={"InstanceNumber": 2})
    assert second["0020000D"]["Value"] == ["1.2.3"]
    assert len(await in_thread(client.search_for_instances, "1.2.3")) == 4
    assert len(await in_thread(client.search_for_instances)) == 5
    assert await in_thread(client.search_for_instances, "1.2.3", search_filters={"Rows": 17}) == []


async def test_retrieval_of_objects(client):
    """A study, a series and an instance come as they were stored."""
    assert len(await in_thread(client.retrieve_study, "1.2.3")) == 4
    series = await in_thread(client.retrieve_series, "1.2.3", "1.2.3.4")
    assert [one.InstanceNumber for one in series] == [1, 2, 3]
    streamed = await in_thread(lambda: list(client.iter_series("1.2.3", "1.2.3.4")))
    assert [one.SOPInstanceUID for one in streamed] == [one.SOPInstanceUID for one in series]
    second = series[1]
    instance = await in_thread(client.retrieve_instance, "1.2.3", "1.2.3.4", second.SOPInstanceUID)
    np.testing.assert_array_equal(instance.pixel_array, ct(number=2).pixel_array)
    plain = await in_thread(
        client.retrieve_instance, "1.2.3", "1.2.3.4", second.SOPInstanceUID, media_types=("application/dicom",)
    )
    assert plain == instance


async def test_retrieval_of_metadata_frames_and_bulk_data(client):
    """Metadata lead to the pixels, which are those of the frames."""
    metadata = await in_thread(client.retrieve_series_metadata, "1.2.3", "1.2.3.4")
    assert [one["00200013"]["Value"] for one in metadata] == [[1], [2], [3]]
    assert len(await in_thread(client.retrieve_study_metadata, "1.2.3")) == 4
    sop = metadata[0]["00080018"]["Value"][0]
    assert await in_thread(client.retrieve_instance_metadata, "1.2.3", "1.2.3.4", sop) == metadata[0]
    pixels = ct(number=1).PixelData
    assert await in_thread(client.retrieve_instance_frames, "1.2.3", "1.2.3.4", sop, [1]) == [pixels]
    octets = (("application/octet-stream", "1.2.840.10008.1.2.1"),)
    frames = await in_thread(client.retrieve_instance_frames, "1.2.3", "1.2.3.4", sop, [1], media_types=octets)
    assert frames == [pixels]
    bulk = await in_thread(client.retrieve_bulkdata, metadata[0]["7FE00010"]["BulkDataURI"])
    assert bulk == [pixels]
    with pytest.raises(HTTPError, match="404"):
        await in_thread(client.retrieve_instance_frames, "1.2.3", "1.2.3.4", sop, [2])


async def test_retrieval_of_pictures(client):
    """Pictures of an instance, a frame and a series are what the client asks for."""
    (first, *_) = await in_thread(client.retrieve_series, "1.2.3", "1.2.3.4")
    names = ("1.2.3", "1.2.3.4", first.SOPInstanceUID)
    picture = await in_thread(client.retrieve_instance_rendered, *names)
    assert Image.open(BytesIO(picture)).format == "JPEG"
    options = {"media_types": ("image/png",), "params": {"viewport": "32,32", "window": "0,2000,linear"}}
    picture = await in_thread(client.retrieve_instance_rendered, *names, **options)
    assert (Image.open(BytesIO(picture)).format, Image.open(BytesIO(picture)).size) == ("PNG", (32, 32))
    picture = await in_thread(client.retrieve_instance_frames_rendered, *names, [1], media_types=("image/jpeg",))
    assert Image.open(BytesIO(picture)).size == (16, 16)
    picture = await in_thread(client.retrieve_series_rendered, "1.2.3", "1.2.3.4", media_types=("image/png",))
    assert Image.open(BytesIO(picture)).format == "PNG"
    with pytest.raises(HTTPError, match="406"):
        await in_thread(client.retrieve_instance_rendered, *names, media_types=("image/gif",))
