/** Stands in for the codecs of Zarr, which niivue could load: no volume here comes as Zarr, and they are 1.3 MB. */

export default {
  fromConfig(): never {
    throw new Error("this page was built without the codecs of Zarr");
  },
};
